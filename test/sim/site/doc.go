// Package site simulates a site of several members from one seed: three to six workers on a
// few hosts, each with the real membership, leader, image map, placement and coordinator and
// the real locks of images, over one cluster in memory (rados/mem), in virtual time
// (testing/synctest). In the place of an image's replay there is an owner (owner.go) that
// takes the image's exclusive lock and writes by which right it writes, as a replayer does,
// so that the store itself shows who has written.
//
// What may go wrong: members are cut off from the cluster, or from some of its objects, so
// that operations hang, fail, or land late; they are paused, and go on with what they
// believed; they are killed and started again in the same seat, also while their predecessor
// is only paused; whole hosts end; the cluster stands still for everybody; operations fail,
// are slow, or are performed and their answer lost; notifications are lost, late or come
// twice; watches are lost; members are blocklisted; clocks are hours apart and jump; leaders
// are asked to give up, lose their lock, are paused, cut off or killed in the middle of a
// decision; images come and go; workers leave in order.
//
// After each operation an oracle (oracle.go) looks whether somebody has done what only
// another might. When the trouble is over, the site has to come to rest (rest.go) within
// a bounded time, and has to stay so.
//
// What makes a seed repeat is told in package sim: who does what for the how manyeth time
// draws its own dice, and no two operations end at the same nanosecond.
package site
