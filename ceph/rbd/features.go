package rbd

import (
	"fmt"
	"strings"
)

// Features is a set of image features (src/include/rbd/features.h).
type Features uint64

// The features of an image.
const (
	FeatureLayering      Features = 1 << 0
	FeatureStriping      Features = 1 << 1 // STRIPINGV2
	FeatureExclusiveLock Features = 1 << 2
	FeatureObjectMap     Features = 1 << 3
	FeatureFastDiff      Features = 1 << 4
	FeatureDeepFlatten   Features = 1 << 5
	FeatureJournaling    Features = 1 << 6
	FeatureDataPool      Features = 1 << 7
	FeatureOperations    Features = 1 << 8
	FeatureMigrating     Features = 1 << 9
	FeatureNonPrimary    Features = 1 << 10 // snapshot-based mirroring only
)

// Sets of features (src/include/rbd/features.h).
const (
	FeaturesAll = FeatureLayering | FeatureStriping | FeatureExclusiveLock | FeatureObjectMap | FeatureFastDiff |
		FeatureDeepFlatten | FeatureJournaling | FeatureDataPool | FeatureOperations | FeatureMigrating | FeatureNonPrimary

	// FeaturesMutable may be switched on and off on an existing image.
	FeaturesMutable = FeatureExclusiveLock | FeatureObjectMap | FeatureFastDiff | FeatureJournaling | FeatureNonPrimary

	// FeaturesDisableOnly may be switched off but not on.
	FeaturesDisableOnly = FeatureDeepFlatten

	// FeaturesSingleClient need the exclusive lock.
	FeaturesSingleClient = FeatureExclusiveLock | FeatureObjectMap | FeatureFastDiff | FeatureJournaling

	// FeaturesImplicit are switched on by something else than the user's wish.
	FeaturesImplicit = FeatureStriping | FeatureDataPool | FeatureFastDiff | FeatureOperations | FeatureMigrating | FeatureNonPrimary

	// FeaturesInternal are not the user's to choose.
	FeaturesInternal = FeatureOperations | FeatureMigrating
)

var featureNames = []string{
	"layering", "striping", "exclusive-lock", "object-map", "fast-diff", "deep-flatten", "journaling",
	"data-pool", "operations", "migrating", "non-primary",
}

// Has tells whether all of want are there.
func (f Features) Has(want Features) bool { return f&want == want }

// String names the features as "rbd info" does, separated by commas.
func (f Features) String() string { return bitNames(uint64(f), featureNames) }

// ParseFeature finds a feature by the name that String gives it.
func ParseFeature(name string) (Features, error) {
	for i, n := range featureNames {
		if n == name {
			return 1 << i, nil
		}
	}
	return 0, fmt.Errorf("no such image feature: %q", name)
}

// OpFeatures is the set of operation features; FeatureOperations is on while it
// is not empty. They mark images that older clients must not touch.
type OpFeatures uint64

// The operation features (src/include/rbd/features.h).
const (
	OpFeatureCloneParent OpFeatures = 1 << 0
	OpFeatureCloneChild  OpFeatures = 1 << 1
	OpFeatureGroup       OpFeatures = 1 << 2
	OpFeatureSnapTrash   OpFeatures = 1 << 3
)

// Has tells whether all of want are there.
func (f OpFeatures) Has(want OpFeatures) bool { return f&want == want }

// String names the operation features as "rbd info" does.
func (f OpFeatures) String() string {
	return bitNames(uint64(f), []string{"clone-parent", "clone-child", "group", "snap-trash"})
}

// Flags say what about the image or a snapshot may not be relied on
// (src/include/rbd/librbd.h).
type Flags uint64

// The flags.
const (
	FlagObjectMapInvalid Flags = 1 << 0
	FlagFastDiffInvalid  Flags = 1 << 1
)

// Has tells whether all of want are there.
func (f Flags) Has(want Flags) bool { return f&want == want }

// String names the flags as "rbd info" does.
func (f Flags) String() string {
	return bitNames(uint64(f), []string{"object map invalid", "fast diff invalid"})
}

func bitNames(bits uint64, names []string) string {
	var on []string
	for i, name := range names {
		if bits&(1<<i) != 0 {
			on = append(on, name)
			bits &^= 1 << i
		}
	}
	if bits != 0 {
		on = append(on, fmt.Sprintf("unknown (%#x)", bits))
	}
	return strings.Join(on, ", ")
}
