// Package config reads rbd-warden's configuration the way Ceph's daemons read
// theirs: a command line with any option of Ceph in it, the environment, ceph.conf,
// and the monitors' configuration database.
//
// Who reads what:
//
//   - The daemon process never loads librados. What it needs itself (paths of the
//     log, of the pid file and of the sockets; the user to become) comes from the
//     command line and from ceph.conf, which ParseArgs, ParseFile and Resolve
//     understand on their own. The result is a Config.
//   - A worker gets that Config from the daemon, gives librados the same command
//     line overrides and the same ceph.conf, and then asks the live connection for
//     every option that it uses (Load). So the monitors' database counts, and
//     librados does its own parsing of what concerns it.
//   - Options of our own (rbd_warden_*) are unknown to librados. They come from the
//     command line and from ceph.conf.
//
// Everything here is pure: files, environment and clock come in as arguments.
//
// Facts are from Ceph's src/common/{ceph_argparse,config,ConfUtils,options}.cc.
package config
