// Package wireguard makes a stack one end of a WireGuard network. Its [Link] speaks the WireGuard
// protocol (https://www.wireguard.com/protocol/) over UDP, so the other ends may be kernels, phones
// or other programs. It needs no privileges, kernel module or device.
//
// The configuration is a file of wg-quick. These lines give a stack its end of the network:
//
//	cfg, err := wireguard.ParseFile("wg0.conf")
//	link, err := wireguard.Open(cfg)
//	err = link.AttachTo(stack)
//
// Then stack.Dial reaches all addresses in the peers' AllowedIPs, and they reach stack.Listen.
//
// # The file
//
// The format is that of wg(8), with the additions of wg-quick(8). There is one [Interface] section
// and any number of [Peer] sections. A line has the form Key = value. A comment goes from a # to
// the end of the line. The case of keys does not matter, and neither does white space. A key may be
// repeated, or have a list as its value, if the manual pages allow it; any other key may be given
// once per section. AllowedIPs with an empty value is ignored, and so are the keys of wg-quick,
// such as PostUp, except SaveConfig; all other keys need a value. These are the keys:
//
//   - [Interface] PrivateKey (required), ListenPort, Address and MTU have the same meaning as in
//     wg-quick. Without ListenPort the system chooses the port. Without MTU it is 1420 bytes.
//   - FwMark marks the datagrams. It works on Linux, where it needs CAP_NET_ADMIN (otherwise [Open]
//     fails), and on FreeBSD and OpenBSD.
//   - Table is auto, which is the default, or off. If it is off, [Link.AttachTo] adds no routes. A
//     number is an error, because a stack has one routing table.
//   - DNS has name servers and search domains. [Link.AttachTo] gives them to the stack, unless the
//     stack has name servers.
//   - PreUp, PostUp, PreDown and PostDown are commands, which this package never runs. [Parse] puts
//     them into [Config.Hooks]. [Open] fails while there are any, because they may be the firewall
//     that the file relies on. A program that does not need them empties Hooks.
//   - SaveConfig is accepted and ignored. This package never writes a file.
//   - [Peer] PublicKey (required), PresharedKey, AllowedIPs, Endpoint and PersistentKeepalive have
//     the same meaning as in wg(8). [Open] looks up the name in an Endpoint once.
//
// Addresses, AllowedIPs and endpoints may be of IPv4 and of IPv6, in any combination: an Endpoint
// of IPv6 has brackets, [2001:db8::1]:51820. If there is an IPv6 Address, MTU must be at least
// 1280.
package wireguard
