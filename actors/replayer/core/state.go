package core

import "fmt"

// State is where an image stands between "nothing known" and "replaying".
//
//	        Start ┌───────────────────────────────────────────────────────────┐
//	          │   │ (again, after a pause that the supervisor sets)           │
//	          ▼   ▼                                                           │
//	PREPARE_LOCAL_IMAGE ──local is primary──────────────────────────────┐     │
//	          ▼                                                         │     │
//	PREPARE_REMOTE_IMAGE ──remote gone / not primary and no copy here──▶│     │
//	          ▼                                                         │     │
//	GET_REMOTE_TAG_CLASS ──client disconnected─────────────────────────▶│     │
//	          ▼                                                         │     │
//	OPEN_REMOTE_IMAGE                                                   │     │
//	          ▼                                                         │     │
//	IS_PRIMARY ──remote not primary and we are not linked to it────────▶│     │
//	          │                                                         │     │
//	   copy here? ──no──▶ UNREGISTER_CLIENT ▶ REGISTER_CLIENT           │     │
//	          │           (or UPDATE_CLIENT_IMAGE)                      │     │
//	          │                 ▼                                       │     │
//	          │yes        CREATE_LOCAL_IMAGE                            │     │
//	          ▼                 │                                       │     │
//	OPEN_LOCAL_IMAGE ◀──────────┘                                       │     │
//	          │   ╲ re-sync in place ▶ BEGIN_RESYNC ▶ IMAGE_SYNC ▶      │     │
//	          ▼     END_RESYNC ▶ UPDATE_CLIENT_STATE                    │     │
//	GET_REMOTE_TAGS ──split-brain, re-sync asked for───────────────────▶│     │
//	          ▼                                                         │     │
//	IMAGE_SYNC (only while the peer client says SYNCING)                │     │
//	          ▼                                                         │     │
//	UPDATE_CLIENT_STATE (SYNCING → REPLAYING)                           │     │
//	          ▼                                                         │     │
//	CLOSE_REMOTE_IMAGE                                                  │     │
//	          ▼                                                         │     │
//	INIT_REMOTE_JOURNALER ─▶ START_REPLAY ─▶ REPLAYING ◀──────────┐     │     │
//	                                            │ entry of a new  │     │     │
//	                                            │ tag             │     │     │
//	                                            ▼                 │     │     │
//	                           GET_REMOTE_TAG ─▶ ALLOCATE_LOCAL_TAG     │     │
//	REPLAYING ─Pause, all that began is committed─▶ PAUSED ─Resume─▶ REPLAYING
//	                                            │ it is a demotion      │     │
//	                                            ▼                       ▼     │
//	                                        STOPPING ─▶ CLOSE_LOCAL_IMAGE     │
//	                                                          │               │
//	                         remote gone, re-sync: REMOVE_LOCAL_IMAGE         │
//	                                                          ▼               │
//	                                                       STOPPED ───────────┘
//
// Every state but STOPPED, IS_PRIMARY (a decision), REPLAYING and PAUSED waits for the
// result of exactly one effect. Any failure leads to STOPPING, which first waits
// until no effect is under way: then nothing of ours can still be writing when the
// local image's lock is given up.
//
// The names are those of rbd-mirror's well-known diagram
// (src/tools/rbd_mirror/ImageReplayer.h, image_replayer/BootstrapRequest.h).
type State uint8

// The states of an image.
const (
	Stopped State = iota
	PrepareLocalImage
	PrepareRemoteImage
	GetRemoteTagClass
	OpenRemoteImage
	UnregisterClient
	RegisterClient
	UpdateClientImage
	CreateLocalImage
	OpenLocalImage
	BeginResync
	GetRemoteTags
	ImageSync
	EndResync
	UpdateClientState
	CloseRemoteImage
	InitRemoteJournaler
	StartReplay
	Replaying
	GetRemoteTag
	AllocateLocalTag
	Paused
	Stopping
	CloseLocalImage
	RemoveLocalImage
)

var stateNames = [...]string{
	Stopped:             "STOPPED",
	PrepareLocalImage:   "PREPARE_LOCAL_IMAGE",
	PrepareRemoteImage:  "PREPARE_REMOTE_IMAGE",
	GetRemoteTagClass:   "GET_REMOTE_TAG_CLASS",
	OpenRemoteImage:     "OPEN_REMOTE_IMAGE",
	UnregisterClient:    "UNREGISTER_CLIENT",
	RegisterClient:      "REGISTER_CLIENT",
	UpdateClientImage:   "UPDATE_CLIENT_IMAGE",
	CreateLocalImage:    "CREATE_LOCAL_IMAGE",
	OpenLocalImage:      "OPEN_LOCAL_IMAGE",
	BeginResync:         "BEGIN_RESYNC",
	GetRemoteTags:       "GET_REMOTE_TAGS",
	ImageSync:           "IMAGE_SYNC",
	EndResync:           "END_RESYNC",
	UpdateClientState:   "UPDATE_CLIENT_STATE",
	CloseRemoteImage:    "CLOSE_REMOTE_IMAGE",
	InitRemoteJournaler: "INIT_REMOTE_JOURNALER",
	StartReplay:         "START_REPLAY",
	Replaying:           "REPLAYING",
	GetRemoteTag:        "GET_REMOTE_TAG",
	AllocateLocalTag:    "ALLOCATE_LOCAL_TAG",
	Paused:              "PAUSED",
	Stopping:            "STOPPING",
	CloseLocalImage:     "CLOSE_LOCAL_IMAGE",
	RemoveLocalImage:    "REMOVE_LOCAL_IMAGE",
}

func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}
