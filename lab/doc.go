// Package lab starts and stops throwaway Ceph clusters on the loopback interface, for the demo, the live tests and the
// benchmarks. It needs Ceph's own programs (ceph-mon, ceph-mgr, ceph-osd, ceph, rbd) and Go's standard library only.
//
// A cluster is one directory and three processes:
//
//	DIR/lab.json                 what this cluster is; Open and Stop refuse a directory without it
//	DIR/ceph.conf                for daemons and clients; also as NAME.conf, for --cluster NAME run in DIR
//	DIR/client.NAME.keyring      a user's key; ceph.conf finds it by the user's name
//	DIR/{mon,mgr,osd}/           daemons' data
//	DIR/run/                     pid files and admin sockets
//	DIR/log/                     logs, kept until Stop
//
// Every process that a cluster starts carries the environment variable Mark with the cluster's directory as its value.
// That is how Stop finds all of them, also when the starter died before it could write anything down, and how it never
// touches a process of anybody else.
//
// The caller's contract: call Stop for each cluster that Start returned. A program that may be killed asks for a guard
// (Options.Guard), a process that outlives it and cleans up. A cluster that was left behind is stopped by Open and Stop
// from any other process.
package lab
