// Package memory bounds the memory of worker processes, on three levels:
//
//	cgroup   a Group for each worker, with a hard limit that the kernel enforces: what
//	         passes it is killed, and nothing else on the host suffers
//	Limit    the rule that derives that limit from options and host
//
// The daemon uses them; it goes on without a Group where there can be none.
package memory
