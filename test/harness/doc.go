// Package harness drives end-to-end tests: a pair of throwaway clusters, images with known contents on the primary, a
// mirroring daemon beside the secondary, and questions about the result that are answered by Ceph's own programs.
//
// The daemon is bin/rbd-mirror of this tree unless WARDEN_TEST_DAEMON names another. With /usr/bin/rbd-mirror in its
// place the tests check themselves: what upstream's daemon does right, they must accept.
//
// Environment:
//
//	WARDEN_TEST_DAEMON   the daemon under test
//	WARDEN_TEST_LOGS     where logs of a failed test go (default: rbd-warden-test-logs in the temporary directory)
//	WARDEN_TEST_STORE    object store of the clusters: memstore (default) or bluestore
//
// All that a test starts ends with it: daemons by their process group, clusters by the mark that their processes carry,
// and by a guard process where the test binary is killed or times out.
package harness
