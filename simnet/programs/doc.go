// Package programs has tests of real programs on simulated networks: a Raft cluster of
// hashicorp/raft, and streams of gRPC. It is a module of its own, so that these programs are no
// dependencies of bsdnet.
package programs
