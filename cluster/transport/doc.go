// Package transport carries messages between the actors of a site's worker processes: of
// one actor system to those of the others, over TCP, and of nobody else.
//
// # Who may talk
//
// The root of trust is cephx: who may write a mirrored pool can put a record there that
// says where it listens and by which certificate it is known (package membership). Each
// worker makes its certificate when it starts, and keeps the key to itself.
//
//	worker 4123                                         worker 4139
//	  record in the pool: 10.0.0.1:40123, sha256 ab…      record: 10.0.0.2:40988, sha256 cd…
//	  TLS 1.3 ─────────── both certificates ────────────▶ leaf's SHA-256 is that of a record
//	                                                       of a living member, now?
//
// Both sides ask the same of the other, and a third thing: the certificate is valid at this
// moment and names this cluster's fsid. Who calls a member wants that member's certificate,
// not just any member's. A connection ends as soon as the record that admitted it is gone.
//
// # What they may say
//
// The protocol is that of protoactor's remote (service remote.Remoting), so a PID of another
// worker is used as any other. Its address is the member's id, which nobody ever has again,
// not a host and a port. Of what the library lets peers do, this is left:
//
//   - messages of the types in Options.Messages, in protobuf, to the actors in
//     Options.Exposed and to futures. No message of another type is even decoded; no system
//     message passes: no member can stop, watch or restart another's actors.
//   - as a sender, a member names actors of its own only.
//
// Whoever breaks a rule loses the connection, and it is logged, at a bounded rate.
//
// # What can be relied on
//
// A message arrives once or not at all, those of one sender to one actor in order. Sending
// never blocks. What cannot be delivered, because the member is gone, does not answer, or
// reads nothing, is answered to the sender by actor.DeadLetterResponse as far as that is
// known; a future fails by it at once. A connection is made when there is something to say,
// and ended when there was nothing for a minute; a worker that nobody talks to has none.
//
// Nothing that replicates or places images rests on this: a worker without a transport does
// its work, and is not seen by "ps --cluster".
package transport
