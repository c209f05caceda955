package bsdnet

// ConnInfoOf is connInfo.
var ConnInfoOf = connInfo

// UDPInfoOf is udpInfo.
var UDPInfoOf = udpInfo
