package bsdnet

// ConnInfoOf is connInfo.
var ConnInfoOf = connInfo
