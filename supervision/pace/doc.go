// Package pace slows reading down to so many bytes a second.
//
// A Bucket is one limit, shared by all who have it in their Chain: an image's own, its
// pool's, its daemon's. Whoever wants to read takes bytes from each bucket of its chain
// before it reads, for as much as it expects, and corrects that when it knows how much it
// was. So the smallest limit wins by construction.
//
//	image ──▶ pool ──▶ daemon
//	bucket    bucket   bucket      each: first come, first served
//
// A bucket goes into debt: what is taken is paid for afterwards, by those who come next. So
// something that is larger than what a bucket holds passes, and costs its time all the same.
// Nobody holds anything of a bucket while it waits; a wait ends at once with its context.
//
// Invariant: in any span of time no more than rate × (span + Burst) bytes are granted, and
// the last grant.
package pace
