//go:build race

package bsdnet_test

const raceEnabled = true
