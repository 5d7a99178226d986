// Package admin speaks the protocol of Ceph's admin sockets, on both sides, and renders
// answers as Ceph's daemons do. What the commands do is the caller's.
//
// A client connects to a unix socket, sends one request and reads one reply:
//
//	request   JSON object {"prefix": "rbd mirror status", "format": "xml", ...}, ended by NUL or LF
//	          or, in the oldest form, a big-endian u32: 0 version, 1 counters, 2 their schema
//	reply     big-endian u32 length, then so many bytes
//
// There is no place for an error in a reply: it is text, "ERROR: (22) Invalid argument"
// on a line of its own and then what the command says about it.
//
// The "ceph" program first asks for get_command_descriptions and matches the user's
// words against the signatures that it gets; so each pool and image has commands of
// its own, and an unknown one is refused by "ceph" itself.
//
// Facts: src/common/{admin_socket,Formatter}.cc, src/common/cmdparse.cc.
package admin
