// Package udptunnel is a tunnel over UDP between two stacks, in two processes or on two hosts: a link that carries each IP packet in a datagram,
// encrypted and authenticated (ChaCha20-Poly1305, with keys from X25519 and a key that both ends have). Who does not have the key can neither read nor
// send.
//
// Three lines on one host, and the same on another with the first one's address as Peer and without one here, connect two stacks:
//
//	tunnel, err := udptunnel.Open(udptunnel.Config{Local: ":7000", Key: key})
//	…
//	err = stack.Attach(tunnel, netip.MustParsePrefix("10.0.0.1/24"))
//
// docs/udp-tunnel.md describes the protocol.
package udptunnel
