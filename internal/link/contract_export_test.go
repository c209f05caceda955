package link

// TestLink is the contract, for links of other packages.
var TestLink = testLink
