package wire

// AttrMask says which attributes are asked for or present.
type AttrMask uint32

// The bits of an AttrMask.
const (
	AttrUID         AttrMask = 1 << 0
	AttrGID         AttrMask = 1 << 1
	AttrPerm        AttrMask = 1 << 2
	AttrAtime       AttrMask = 1 << 3
	AttrCtime       AttrMask = 1 << 4
	AttrMtime       AttrMask = 1 << 5
	AttrType        AttrMask = 1 << 6
	AttrAtimeSet    AttrMask = 1 << 7 // SETATTR: take Atime, not the server's clock
	AttrMtimeSet    AttrMask = 1 << 8 // SETATTR: take Mtime, not the server's clock
	AttrDist        AttrMask = 1 << 10
	AttrDFiles      AttrMask = 1 << 11
	AttrUnstuffed   AttrMask = 1 << 12 // a metafile without it is stuffed
	AttrMirrors     AttrMask = 1 << 13
	AttrSize        AttrMask = 1 << 15 // of a datafile
	AttrTarget      AttrMask = 1 << 18
	AttrDirentCount AttrMask = 1 << 19
	AttrDirHint     AttrMask = 1 << 20
	AttrDistDir     AttrMask = 1 << 21
	AttrCapability  AttrMask = 1 << 22

	// AttrCommon is what every object has.
	AttrCommon = AttrUID | AttrGID | AttrPerm | AttrAtime | AttrCtime | AttrMtime | AttrType
	// AttrAll is what clients ask for when they do not know the object's type.
	AttrAll = AttrCommon | AttrDist | AttrDFiles | AttrMirrors | AttrTarget |
		AttrDirentCount | AttrDirHint | AttrDistDir | AttrCapability
)

// Bits of Attr.Flags.
const (
	FlagImmutable uint64 = 0x10
	FlagAppend    uint64 = 0x20
	FlagNoAtime   uint64 = 0x80
	FlagMirror    uint64 = 0x01000000
)

// Attr is an object's attributes. Mask says which of the fields below it are
// on the wire; the others are zero after decoding and ignored when encoding.
//
//	u32 uid, gid, perms; pad4; i64 atime, mtime, ctime; u32 mask; i32 type
//	AttrCapability:   capability
//	metafile without AttrUnstuffed: i32 stuffed size; pad4
//	AttrDist:         distribution
//	AttrDFiles:       u32 n; pad4; handle[n]; u64 flags
//	AttrMirrors:      u32 copies; pad4; handle[copies * datafiles]
//	AttrSize:         i64 size
//	AttrTarget:       u32 length with NUL; pad4; string target
//	AttrDistDir:      distributed directory
//	AttrDirentCount or AttrDirHint: i64 count; directory hint
type Attr struct {
	UID, GID            uint32
	Perms               uint32 // rwxrwxrwx, setgid is bit 10, setuid bit 11
	Atime, Mtime, Ctime int64  // seconds since the epoch
	Mask                AttrMask
	Type                ObjType

	Cap          Capability // AttrCapability
	StuffedSize  int32      // stuffed metafile: the file's size
	Dist         Dist       // AttrDist
	DFiles       []Handle   // AttrDFiles, in the distribution's order
	Flags        uint64     // AttrDFiles
	MirrorCopies uint32     // AttrMirrors
	Mirrors      []Handle   // AttrMirrors, MirrorCopies * len(DFiles)
	Size         int64      // AttrSize
	Target       string     // AttrTarget
	DistDir      DistDir    // AttrDistDir
	DirentCount  int64      // AttrDirentCount or AttrDirHint
	DirHint      DirHint    // AttrDirentCount or AttrDirHint
}

// Stuffed reports whether a is a metafile whose data is all in its first
// datafile, so that StuffedSize is the file's size.
func (a *Attr) Stuffed() bool { return a.Type == TypeMetafile && a.Mask&AttrUnstuffed == 0 }

// AppendAttr appends a to dst, which is taken as the start of a payload.
func AppendAttr(dst []byte, a *Attr) []byte {
	c := encoder(dst)
	a.layout(c)
	return c.b
}

// DecodeAttr decodes what AppendAttr wrote.
func DecodeAttr(b []byte) (Attr, error) {
	var a Attr
	c := decoder(b)
	a.layout(c)
	return a, c.end()
}

// attrSize is the least number of bytes that an Attr takes.
const attrSize = 48

func (a *Attr) layout(c *codec) {
	n32(c, &a.UID)
	n32(c, &a.GID)
	n32(c, &a.Perms)
	c.pad4()
	n64(c, &a.Atime)
	n64(c, &a.Mtime)
	n64(c, &a.Ctime)
	n32(c, &a.Mask)
	n32(c, &a.Type)
	if a.Mask&AttrCapability != 0 {
		a.Cap.layout(c)
	}
	if a.Stuffed() {
		n32(c, &a.StuffedSize)
		c.pad4()
	}
	if a.Mask&AttrDist != 0 {
		a.Dist.layout(c)
	}
	a.layoutFiles(c)
	if a.Mask&AttrSize != 0 {
		n64(c, &a.Size)
	}
	if a.Mask&AttrTarget != 0 {
		c.textWithLen(&a.Target, MaxPath)
	}
	if a.Mask&AttrDistDir != 0 {
		a.DistDir.layout(c)
	}
	if a.Mask&(AttrDirentCount|AttrDirHint) != 0 {
		n64(c, &a.DirentCount)
		a.DirHint.layout(c)
	}
}

func (a *Attr) layoutFiles(c *codec) {
	if a.Mask&AttrDFiles != 0 {
		n := c.count(len(a.DFiles), MaxDFiles, 8)
		c.pad4()
		list64(c, &a.DFiles, n)
		n64(c, &a.Flags)
	}
	if a.Mask&AttrMirrors != 0 {
		n32(c, &a.MirrorCopies)
		c.pad4()
		n := uint64(a.MirrorCopies) * uint64(len(a.DFiles))
		if !c.enc && n > MaxMirrors {
			c.fail("%d mirror copies of %d datafiles", a.MirrorCopies, len(a.DFiles))
			return
		}
		list64(c, &a.Mirrors, int(n))
	}
}

// textWithLen is a u32 length that counts the NUL and is 0 for the empty
// text, pad4, and the string. The string's own length is what counts.
func (c *codec) textWithLen(p *string, limit int) {
	var n uint32
	if len(*p) > 0 {
		n = uint32(len(*p)) + 1
	}
	n32(c, &n)
	c.pad4()
	c.str(p, limit)
}

// DistDir is how a directory's entries spread over its dirdata objects.
//
//	i32 tree height, n servers, n bitmap words, split size, server number,
//	branch level; u32 bitmap[]; pad4; handle[n servers]
type DistDir struct {
	TreeHeight  int32    // ceil(log2(len(Dirdata)))
	SplitSize   int32    // entries in a bucket before it splits
	ServerNo    int32    // the bucket's own index, -1 in the directory's copy
	BranchLevel int32    // of the bucket
	Bitmap      []uint32 // bit i of word i/32: bucket i is active
	Dirdata     []Handle // bucket i's object
}

// Active reports whether bucket i holds entries.
func (d *DistDir) Active(i int) bool {
	return i >= 0 && i/32 < len(d.Bitmap) && i < len(d.Dirdata) && d.Bitmap[i/32]>>(i%32)&1 != 0
}

func (d *DistDir) layout(c *codec) {
	n32(c, &d.TreeHeight)
	servers := c.count(len(d.Dirdata), MaxDirdata, 8)
	words := c.count(len(d.Bitmap), MaxDirdata/32, 4)
	n32(c, &d.SplitSize)
	n32(c, &d.ServerNo)
	n32(c, &d.BranchLevel)
	list32(c, &d.Bitmap, words)
	c.pad4()
	list64(c, &d.Dirdata, servers)
}

// DirHint is what a directory wishes for files created in it; zero fields wish
// nothing.
//
//	u32 length with NUL; pad4; string distribution name
//	u32 length with NUL; pad4; string distribution parameters
//	u32 datafiles; u32 layout; i32 n servers; i32 bytes of list; string servers
type DirHint struct {
	DistName   string
	DistParams string
	DFiles     uint32
	Layout     LayoutType
	NumServers int32
	ListSize   int32
	Servers    string
}

func (h *DirHint) layout(c *codec) {
	c.textWithLen(&h.DistName, MaxPath)
	c.textWithLen(&h.DistParams, MaxPath)
	n32(c, &h.DFiles)
	n32(c, &h.Layout)
	n32(c, &h.NumServers)
	n32(c, &h.ListSize)
	c.str(&h.Servers, MaxLayout*MaxAddr)
}

// LayoutType is how a server chooses the servers of a new file's datafiles.
type LayoutType int32

// The layouts.
const (
	LayoutNull       LayoutType = 0
	LayoutNone       LayoutType = 1 // the order of the configuration
	LayoutRoundRobin LayoutType = 2 // that order from a random start
	LayoutRandom     LayoutType = 3
	LayoutList       LayoutType = 4 // the servers named
	LayoutLocal      LayoutType = 5
)

// Layout asks for servers when a file or directory is created.
//
//	i32 type; pad4; i32 n; pad4; string address[n]
type Layout struct {
	Type    LayoutType
	Servers []string // addresses such as tcp://host:port, for LayoutList
}

func (l *Layout) layout(c *codec) {
	n32(c, &l.Type)
	c.pad4()
	n := c.count(len(l.Servers), MaxLayout, 1)
	c.pad4()
	c.strs(&l.Servers, n, MaxAddr)
}

// strs is n strings; n comes from count.
func (c *codec) strs(p *[]string, n, limit int) {
	if !c.enc && n > c.left()/8 {
		c.take(8 * n)
		n = 0
	}
	resize(c, p, n)
	for i := range *p {
		c.str(&(*p)[i], limit)
	}
}

// HandleRange is the closed range of handles [First, Last].
type HandleRange struct{ First, Last Handle }

// layoutRanges is an extent array: pad4; u32 n; {u64 first, u64 last}[n].
func layoutRanges(c *codec, p *[]HandleRange) {
	c.pad4()
	resize(c, p, c.count(len(*p), MaxExtents, 16))
	for i := range *p {
		n64(c, &(*p)[i].First)
		n64(c, &(*p)[i].Last)
	}
}

// layoutAttrs is n attributes; n comes from count.
func layoutAttrs(c *codec, p *[]Attr, n int) {
	if !c.enc && n > c.left()/attrSize {
		c.take(attrSize * n)
		n = 0
	}
	resize(c, p, n)
	for i := range *p {
		(*p)[i].layout(c)
		if c.err != nil {
			return
		}
	}
}
