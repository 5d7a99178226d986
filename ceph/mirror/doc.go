// Package mirror knows the records of RBD mirroring and the "mirror_" calls of the
// object class "rbd" on the objects rbd_mirroring and rbd_mirror_leader. Nothing
// here does I/O.
//
//	rbd_mirroring       omap: mirror_mode                      u32, Mode
//	                          mirror_uuid                      the bytes, not encoded
//	                          mirror_peer_UUID                 Peer
//	                          image_IMAGEID                    Image
//	                          global_GLOBALID                  string, the image id
//	                          status_global_GLOBALID           StoredStatus, by the local daemon
//	                          remote_status_global_GLOBALID_U  StoredStatus, by the daemon of
//	                                                           the site with mirror uuid U
//	rbd_mirror_leader   omap: instance_INSTANCEID              empty
//	                          image_map_GLOBALID               ImageMap
//
// Clients that watch rbd_mirroring get the notifications of notify.go, and the
// statuses that they wrote count as up.
//
// Sources of the facts: ceph/ceph src/cls/rbd/cls_rbd.cc (namespace mirror),
// src/cls/rbd/cls_rbd_client.cc, src/cls/rbd/cls_rbd_types.cc,
// src/librbd/mirroring_watcher/Types.cc.
package mirror
