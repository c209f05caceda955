// Package wireguard is one end of a WireGuard network inside the program: a [bsdnet.Link] that speaks the real protocol over UDP. It needs no
// rights, no kernel module and no device; the other ends may be kernels, phones or other programs.
//
// The configuration is wg-quick's own file. Three lines give a stack its end of the network:
//
//	cfg, err := wireguard.ParseFile("wg0.conf")
//	link, err := wireguard.Open(cfg)
//	err = link.AttachTo(stack)
//
// From then on stack.Dial and stack.Listen reach, and are reached by, all that the peers' AllowedIPs name.
//
// # The file
//
// It is the format of wg(8) with the additions of wg-quick(8): one [Interface] section, any number of [Peer] sections, lines of the form
// Key = value, comments from a # to the end of the line. Capitals and small letters are the same, and so are spaces and none. What a manual page
// allows several times, or as a list, may come so here; all else comes once. A key of wg-quick's without a value, such as "PostUp =", counts as not given,
// and so do AllowedIPs; other keys need one. These keys are understood:
//
//   - [Interface] PrivateKey (required), ListenPort, Address, MTU: as there. Without a ListenPort the system picks one; without an MTU it is 1420.
//   - FwMark: put on the datagrams, on Linux with CAP_NET_ADMIN, without which [Open] fails, and on FreeBSD and OpenBSD.
//   - Table: auto, the default, or off, with which [Link.AttachTo] adds no routes. A stack has one table, so numbers are an error.
//   - DNS: is parsed into [Config.DNS]. The stack resolves no names; that is the program's.
//   - PreUp, PostUp, PreDown, PostDown: commands are never run. [Parse] takes them into [Config.Hooks] and [Open] refuses to start without them, as
//     they may be the firewall that the file relies on; a program that can do without empties Hooks.
//   - SaveConfig: is accepted and does nothing. No file is ever written.
//   - [Peer] PublicKey (required), PresharedKey, AllowedIPs, Endpoint, PersistentKeepalive: as there. Names are resolved by [Open], once.
//
// IPv6 addresses and AllowedIPs may be in the file, and peers may be reached over IPv6. Inside the network the stack speaks IPv4 only: AttachTo uses
// the IPv4 addresses and routes and leaves the others out, and it is an error where there is no IPv4 address.
package wireguard
