// Package memory bounds the memory of worker processes, on three levels:
//
//	Group      a cgroup for each worker, with a hard limit that the kernel enforces: what
//	           passes it is killed, and nothing else on the host suffers
//	Budget     bytes that the images of a worker may have in flight together
//	Governor   makes budgets smaller while memory is short, before the kernel acts
//
// The daemon uses the first, workers the others. Each goes on where there is no cgroup.
package memory
