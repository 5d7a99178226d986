package journal

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/rados"
)

// Tag asks the cluster for a tag; ENOENT if it does not exist or has expired.
func (j *Journal) Tag(ctx context.Context, t wire.TagTID) (wire.Tag, error) {
	tag, err := rados.Ask(ctx, j.header, j.HeaderObject(), wire.GetTag(t))
	if err != nil {
		return wire.Tag{}, fmt.Errorf("get journal tag %d: %w", t, err)
	}
	return tag, nil
}

// Tags lists, ascending, the tags from the one on that the client may still need.
// class limits them to one class, nil does not. ENOENT if the client is not
// registered.
func (j *Journal) Tags(ctx context.Context, clientID string, class *wire.TagClass) ([]wire.Tag, error) {
	var tags []wire.Tag
	var after wire.TagTID
	for {
		page, err := rados.Ask(ctx, j.header, j.HeaderObject(), wire.TagList(after, wire.MaxReturn, clientID, class))
		if err != nil {
			return nil, fmt.Errorf("list journal tags: %w", err)
		}
		tags = append(tags, page...)
		if len(page) < wire.MaxReturn {
			return tags, nil
		}
		after = page[len(page)-1].TID
	}
}

// AllocateTag makes the next tag. class may be wire.NewTagClass. Losing a race
// against another writer (ESTALE, EEXIST) is tried again.
func (j *Journal) AllocateTag(ctx context.Context, class wire.TagClass, data wire.TagData) (wire.Tag, error) {
	return j.AllocateTagIf(ctx, class, data, always)
}

func always(context.Context) error { return nil }

// AllocateTagIf is AllocateTag unless may, which looks at the journal, returns an error.
// Whatever tag somebody else has made that may did not see, it is called again.
func (j *Journal) AllocateTagIf(ctx context.Context, class wire.TagClass, data wire.TagData, may func(context.Context) error) (wire.Tag, error) {
	tid, err := allocateTag(ctx, j.header, j.HeaderObject(), class, data, may)
	if err != nil {
		return wire.Tag{}, err
	}
	j.notifyUpdate(true)
	return j.Tag(ctx, tid)
}

// allocateTag finds out the tag's number first: a tag that comes to be after may has looked
// takes that number, and the class refuses ours.
func allocateTag(ctx context.Context, io rados.IOContext, header string, class wire.TagClass, data wire.TagData,
	may func(context.Context) error,
) (wire.TagTID, error) {
	for {
		tid, err := rados.Ask(ctx, io, header, wire.GetNextTagTID())
		if err != nil {
			return 0, fmt.Errorf("allocate journal tag: %w", err)
		}
		if err := may(ctx); err != nil {
			return 0, err
		}
		err = rados.Tell(ctx, io, header, wire.TagCreate(tid, class, wire.Marshal(data)))
		switch {
		case err == nil:
			return tid, nil
		case !errors.Is(err, syscall.ESTALE) && !errors.Is(err, syscall.EEXIST): // EEXIST: somebody was quicker
			return 0, fmt.Errorf("allocate journal tag %d: %w", tid, err)
		}
	}
}

// ImageTag is a tag with its data decoded.
type ImageTag struct {
	TID   wire.TagTID
	Class wire.TagClass
	wire.TagData
}

// ImageTags lists, ascending, the tags of the image's class (see ImageMeta) as far as
// the client may still need them: who was primary when. The last one says who is now. A
// tag whose data does not decode is an error that names it.
func (j *Journal) ImageTags(ctx context.Context, clientID string, class wire.TagClass) ([]ImageTag, error) {
	tags, err := j.Tags(ctx, clientID, &class)
	if err != nil {
		return nil, err
	}
	out := make([]ImageTag, len(tags))
	for i, t := range tags {
		data, err := wire.DecodeTagData(t.Data)
		if err != nil {
			return nil, j.headerError(fmt.Sprintf("decode journal tag %d", t.TID), err)
		}
		out[i] = ImageTag{TID: t.TID, Class: t.Class, TagData: data}
	}
	return out, nil
}

// ImageMeta asks for the data of the client "", the image itself: the class of its
// tags, and whether a resync was requested.
func (j *Journal) ImageMeta(ctx context.Context) (wire.ImageClientMeta, error) {
	c, err := j.Client(ctx, wire.MasterClientID)
	if err != nil {
		return wire.ImageClientMeta{}, err
	}
	meta, err := wire.DecodeClientData(c.Data)
	if err != nil {
		return wire.ImageClientMeta{}, j.headerError("decode the image's journal client", err)
	}
	image, ok := meta.(wire.ImageClientMeta)
	if !ok {
		return wire.ImageClientMeta{}, j.headerError("decode the image's journal client", syscall.EBADMSG)
	}
	return image, nil
}
