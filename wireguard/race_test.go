//go:build race

package wireguard

// raceEnabled: the detector makes pools forget on purpose.
const raceEnabled = true
