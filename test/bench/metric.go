package bench

// Metric is a number that samples have. Less is better, of all of them.
type Metric struct {
	Name, Unit, About string
}

// metrics are all of them, in the order of a table.
var metrics = []Metric{
	{"seconds", "s", "from the start of the work until the last write can be read on the secondary"},
	{"committed", "s", "the same, until the mirror's commit position has reached the primary's"},
	{"p50", "ms", "lag of the median write"},
	{"p99", "ms", "lag of the write that 99 % are faster than"},
	{"worst", "ms", "lag of the slowest write"},
	{"image_p99", "ms", "p99 of the image that was worst off"},
	{"image_p99_median", "ms", "p99 of the median image"},
	{"cpu", "s", "processor time of the daemon, all of its processes together"},
	{"cpu_per_1000", "s", "the same for 1000 writes"},
	{"cpu_per_gib", "s", "the same for a GiB of payload"},
	{"osd_cpu", "s", "processor time of both sites' OSDs"},
	{"remote_ops", "", "operations on the primary's OSD for 1000 writes"},
	{"local_ops", "", "operations on the secondary's OSD for 1000 writes"},
	{"read_per_byte", "", "bytes read from the primary for a byte of payload"},
	{"written_per_byte", "", "bytes sent to the secondary for a byte of payload"},
	{"bootstrap", "s", "from the start of the daemon until it has its copies of all images"},
	{"idle_rss", "MiB", "resident memory at rest, all processes together"},
	{"idle_cpu", "%", "share of one core that is used at rest"},
	{"idle_remote_ops", "/s", "operations on the primary's OSD at rest"},
	{"idle_local_ops", "/s", "operations on the secondary's OSD at rest"},
	{"burst_rss", "MiB", "resident memory after the burst"},
	{"peak_rss", "MiB", "most memory that was resident, all processes together"},
}
