// Package simnet is test networks.
package simnet
