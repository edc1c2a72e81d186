package pvfsd

import (
	"bytes"
	"encoding/binary"
	"strconv"
	"strings"
	"syscall"

	"github.com/zoidfs/zoidfs/internal/errno"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// maxEattrsPerObject bounds the extended attributes of one object.
const maxEattrsPerObject = 512

// Extended attributes with a meaning. The hints of a directory are kept as
// attributes of these names and shown in its attributes as well.
const (
	keyHintDFiles  = "user.pvfs2.num_dfiles"
	keyHintDist    = "user.pvfs2.dist_name"
	keyHintParams  = "user.pvfs2.dist_params"
	keyHintLayout  = "user.pvfs2.layout"
	keyHintServers = "user.pvfs2.server_list"
	keyMetaHint    = "user.pvfs2.meta_hint" // 8 bytes: the flags of a metafile

	internalPrefix = "system.pvfs2."
	keyInternalMD  = internalPrefix + "md" // a metafile's distribution
	keyInternalDH  = internalPrefix + "dh" // its datafiles
	keyInternalND  = internalPrefix + "nd" // their number; of a stuffed file once it is not any more
)

// eattrName turns a key as it is sent, with its NUL, into the name it is kept
// under, and refuses names of no namespace.
func eattrName(key []byte) (string, error) {
	name := string(bytes.TrimSuffix(key, []byte{0}))
	if name == "" || strings.IndexByte(name, 0) >= 0 {
		return "", errno.New("pvfsd.eattr", syscall.EINVAL)
	}
	for _, ns := range []string{"user.", "system.", "trusted.", "security."} {
		if strings.HasPrefix(name, ns) && len(name) > len(ns) {
			return name, nil
		}
	}
	return "", errno.New("pvfsd.eattr", syscall.EOPNOTSUPP)
}

func eattrKey(h wire.Handle, name string) []byte { return append(handleKey(h), name...) }

// eattr returns a copy of an extended attribute, nil if there is none.
func (t *txn) eattr(h wire.Handle, name string) []byte {
	v := t.get(bucketEattrs, eattrKey(h, name))
	if v == nil {
		return nil
	}
	return append([]byte{}, v...)
}

// eattrNames lists the extended attributes of h that begin with prefix, sorted.
func (t *txn) eattrNames(h wire.Handle, prefix string) []string {
	var names []string
	from := eattrKey(h, prefix)
	c := t.cursor(bucketEattrs)
	for k, _ := c.Seek(from); bytes.HasPrefix(k, from); k, _ = c.Next() {
		names = append(names, string(k[8:]))
	}
	return names
}

// setEattrs sets the given attributes of h, which exists.
func (t *txn) setEattrs(h wire.Handle, o *object, names []string, values [][]byte, flags int32) error {
	added := 0
	for _, name := range names {
		switch exists := t.eattr(h, name) != nil; {
		case strings.HasPrefix(name, internalPrefix):
			return errno.New("pvfsd.seteattr", syscall.EPERM)
		case flags&wire.EattrCreate != 0 && exists:
			return errno.New("pvfsd.seteattr", syscall.EEXIST)
		case flags&wire.EattrReplace != 0 && !exists:
			return errno.New("pvfsd.seteattr", syscall.ENOENT)
		case !exists:
			added++
		}
	}
	if added > 0 && len(t.eattrNames(h, ""))+added > maxEattrsPerObject {
		return errno.New("pvfsd.seteattr", syscall.ENOSPC)
	}
	for i, name := range names {
		if err := t.put(bucketEattrs, eattrKey(h, name), values[i]); err != nil {
			return err
		}
		if name == keyMetaHint && o.typ == wire.TypeMetafile && len(values[i]) >= 8 {
			o.flags = binary.LittleEndian.Uint64(values[i])
		}
	}
	return nil
}

func (t *txn) removeEattrs(h wire.Handle) error {
	for _, name := range t.eattrNames(h, "") {
		if err := t.del(bucketEattrs, eattrKey(h, name)); err != nil {
			return err
		}
	}
	return nil
}

// internalEattr is the value of an attribute that the server makes up, nil if
// there is none of that name.
func internalEattr(o *object, name string) []byte {
	if o.typ != wire.TypeMetafile {
		return nil
	}
	le := binary.LittleEndian
	switch name {
	case keyInternalMD:
		return wire.AppendDist(nil, &o.dist)
	case keyInternalDH:
		b := le.AppendUint32(make([]byte, 4), uint32(len(o.dfiles)))
		for _, h := range o.dfiles {
			b = le.AppendUint64(b, uint64(h))
		}
		return b
	case keyInternalND:
		if o.stuffed {
			return le.AppendUint32(nil, o.want)
		}
		return le.AppendUint32(nil, uint32(len(o.dfiles)))
	}
	return nil
}

// internalNames lists what internalEattr knows of o.
func internalNames(o *object) []string {
	if o.typ != wire.TypeMetafile {
		return nil
	}
	return []string{keyInternalDH, keyInternalMD, keyInternalND}
}

// dirHint is what the directory h wishes for new files.
func (t *txn) dirHint(h wire.Handle) wire.DirHint {
	var hint wire.DirHint
	for _, name := range t.eattrNames(h, "user.pvfs2.") {
		v := string(bytes.TrimRight(t.eattr(h, name), "\x00"))
		switch name {
		case keyHintDist:
			hint.DistName = v
		case keyHintParams:
			hint.DistParams = v
		case keyHintDFiles:
			if n, err := strconv.ParseUint(strings.TrimSpace(v), 10, 32); err == nil && n < wire.MaxDFiles {
				hint.DFiles = uint32(n)
			}
		case keyHintLayout:
			if n, err := strconv.ParseUint(strings.TrimSpace(v), 10, 8); err == nil {
				hint.Layout = wire.LayoutType(n)
			}
		case keyHintServers:
			hint.Servers = v
			hint.ListSize = int32(len(v))
			hint.NumServers = int32(len(strings.FieldsFunc(v, func(r rune) bool { return r == ',' || r == ' ' })))
		}
	}
	return hint
}

// setDirHint keeps the wishes in hint as attributes of the directory h.
func (t *txn) setDirHint(h wire.Handle, hint *wire.DirHint) error {
	if max(len(hint.DistName), len(hint.DistParams), len(hint.Servers)) >= wire.MaxEattrValue {
		return errno.New("pvfsd.hint", syscall.EINVAL)
	}
	set := func(name, value string) error {
		if value == "" {
			return nil
		}
		return t.put(bucketEattrs, eattrKey(h, name), append([]byte(value), 0))
	}
	number := func(n int64) string {
		if n == 0 {
			return ""
		}
		return strconv.FormatInt(n, 10)
	}
	for _, kv := range [][2]string{
		{keyHintDist, hint.DistName}, {keyHintParams, hint.DistParams},
		{keyHintDFiles, number(int64(hint.DFiles))}, {keyHintLayout, number(int64(hint.Layout))},
		{keyHintServers, hint.Servers},
	} {
		if err := set(kv[0], kv[1]); err != nil {
			return err
		}
	}
	return nil
}
