// Package resolv finds the addresses of names for a stack: the resolver of BSD's C library, behind
// the errors of package net. It sends queries over the stack, and knows nothing of the system's own
// configuration.
//
//	resolver.go   Resolver, its configuration, and what it needs of the stack
//	lookup.go     addresses of names, names of addresses: gethostbyname, gethostbyaddr
//	search.go     what is known without a query; the search list: res_search
//	send.go       queries to servers: res_send
//	conn.go       the connection to a server that package net's Resolver believes to have
//	message.go    the messages (RFC 1035): res_mkquery, dn_comp, dn_expand
//	rfc6724.go    the order in which addresses are tried
//	errors.go     package net's errors
package resolv
