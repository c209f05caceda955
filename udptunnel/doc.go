// Package udptunnel provides an encrypted tunnel over UDP between two stacks, in two processes or
// on two hosts. A tunnel is a link that carries each IP packet in one datagram, encrypted and
// authenticated with ChaCha20-Poly1305 (RFC 8439). The two ends share a key, and derive the keys of
// each session from it and from an X25519 key exchange. Anyone who does not have the shared key can
// neither read nor send packets.
//
// To connect the stacks of two hosts, run these lines on the first host. Run the same lines on the
// other host with the first host's address as Peer and another address in Attach:
//
//	tunnel, err := udptunnel.Open(udptunnel.Config{Local: ":7000", Key: key})
//	…
//	err = stack.Attach(tunnel, netip.MustParsePrefix("10.0.0.1/24"))
//
// The protocol is specified in docs/udp-tunnel.md.
package udptunnel
