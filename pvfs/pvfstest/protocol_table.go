package pvfstest

import (
	"strings"

	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// rights are attempts of every kind. What becomes of them is that of the
// superuser, the owner, a member of the group, a stranger, and the superuser
// with the null capability.
func rights() []attempt {
	return []attempt{
		{"getattr", func(s *scene) error {
			return s.ask(s.f, nil, &wire.GetAttrReq{Handle: s.f, FSID: s.fsid, Mask: wire.AttrAll, Cred: s.as.cred()}, &wire.GetAttrResp{})
		}, "ok ok ok ok ok"},
		{"listattr", func(s *scene) error {
			return s.ask(s.f, nil, &wire.ListAttrReq{FSID: s.fsid, Mask: wire.AttrAll, Handles: []wire.Handle{s.f}}, &wire.ListAttrResp{})
		}, "ok ok ok ok ok"},
		{"chmod of a file", func(s *scene) error { return s.setattr(s.f, wire.Attr{Perms: 0o600, Mask: wire.AttrPerm}) }, "ok ok EACCES EACCES EACCES"},
		{"chmod of a directory", func(s *scene) error { return s.setattr(s.d, wire.Attr{Perms: 0o700, Mask: wire.AttrPerm}) }, "ok ok EACCES EACCES EACCES"},
		{"chown to oneself", func(s *scene) error { return s.setattr(s.f, wire.Attr{UID: s.as.uid, Mask: wire.AttrUID}) }, "ok ok EACCES EACCES EACCES"},
		{"chown to another", func(s *scene) error { return s.setattr(s.f, wire.Attr{UID: 77, Mask: wire.AttrUID}) }, "ok EPERM EACCES EACCES EACCES"},
		{"chgrp to one's own", func(s *scene) error {
			return s.setattr(s.f, wire.Attr{GID: s.as.gids[len(s.as.gids)-1], Mask: wire.AttrGID})
		}, "ok ok EACCES EACCES EACCES"},
		{"chgrp to another", func(s *scene) error { return s.setattr(s.f, wire.Attr{GID: 77, Mask: wire.AttrGID}) }, "ok EPERM EACCES EACCES EACCES"},
		{"utimes", func(s *scene) error {
			return s.setattr(s.f, wire.Attr{Mtime: 5, Mask: wire.AttrMtime | wire.AttrMtimeSet})
		}, "ok ok EACCES EACCES EACCES"},
		{"touch", func(s *scene) error { return s.setattr(s.f, wire.Attr{Mask: wire.AttrMtime | wire.AttrAtime}) }, "ok ok EACCES EACCES EACCES"},
		{"touch atime", func(s *scene) error { return s.setattr(s.f, wire.Attr{Mask: wire.AttrAtime}) }, "ok ok ok EACCES EACCES"},
		{"touch ctime", func(s *scene) error { return s.setattr(s.f, wire.Attr{Mask: wire.AttrCtime}) }, "ok ok EACCES EACCES EACCES"},
		{"touch what one may write", func(s *scene) error { return s.setShared(wire.Attr{Mask: wire.AttrMtime}) }, "ok ok ok EACCES EACCES"},
		{"set mtime of what one may write", func(s *scene) error {
			return s.setShared(wire.Attr{Mtime: 5, Mask: wire.AttrMtime | wire.AttrMtimeSet})
		}, "ok ok ok EACCES EACCES"},
		{"set atime of what one may write", func(s *scene) error {
			return s.setShared(wire.Attr{Atime: 5, Mask: wire.AttrAtime | wire.AttrAtimeSet})
		}, "ok ok EACCES EACCES EACCES"},
		{"chmod of what one may write", func(s *scene) error { return s.setShared(wire.Attr{Perms: 0o600, Mask: wire.AttrPerm}) }, "ok ok EACCES EACCES EACCES"},
		{"set up a new symlink", func(s *scene) error { return s.newSymlink() }, "ok ok EACCES EACCES EACCES"},
		{"lookup", func(s *scene) error { return s.lookup("f") }, "ok ok ok EACCES EACCES"},
		{"lookup of nothing", func(s *scene) error { return s.lookup("nothing") }, "ENOENT ENOENT ENOENT EACCES EACCES"},
		{"readdir", func(s *scene) error { return s.readdir(s.dd) }, "ok ok ok EACCES EACCES"},
		{"create", func(s *scene) error { return s.create(1) }, "ok ok EACCES EACCES EACCES"},
		{"mkdir", func(s *scene) error { return s.mkdir() }, "ok ok EACCES EACCES EACCES"},
		{"make a symlink", func(s *scene) error { return s.batch(wire.TypeSymlink, 1) }, "ok ok EACCES EACCES EACCES"},
		{"make datafiles", func(s *scene) error { return s.batch(wire.TypeDatafile, 2) }, "ok EACCES EACCES EACCES EACCES"},
		{"crdirent", func(s *scene) error { return s.crdirent("new") }, "ok ok EACCES EACCES EACCES"},
		{"rmdirent", func(s *scene) error { return s.rmdirent("f") }, "ok ok EACCES EACCES EACCES"},
		{"chdirent", func(s *scene) error { return s.chdirent("f") }, "ok ok EACCES EACCES EACCES"},
		{"remove a file", func(s *scene) error { return s.remove(s.f, s.d) }, "ok ok EACCES EACCES EACCES"},
		{"remove a datafile", func(s *scene) error { return s.remove(s.df, s.d) }, "ok ok EACCES EACCES EACCES"},
		{"tree remove", func(s *scene) error { return s.treeRemove(s.df, s.f) }, "ok ok EACCES EACCES EACCES"},
		{"small read", func(s *scene) error {
			return s.askAbout(s.df, s.cap(s.f), s.f, s.small(wire.IORead), &wire.SmallIOResp{})
		}, "ok ok ok EACCES EACCES"},
		{"small write", func(s *scene) error {
			return s.askAbout(s.df, s.cap(s.f), s.f, s.small(wire.IOWrite), &wire.SmallIOResp{})
		}, "ok ok EACCES EACCES EACCES"},
		{"read", func(s *scene) error { return s.io(s.cap(s.f), s.flow(wire.IORead), 4) }, "ok ok ok EACCES EACCES"},
		{"write", func(s *scene) error { return s.io(s.cap(s.f), s.flow(wire.IOWrite), 4) }, "ok ok EACCES EACCES EACCES"},
		{"truncate", func(s *scene) error {
			return s.ask(s.df, s.cap(s.f), &wire.TruncateReq{Handle: s.df, FSID: s.fsid, Size: 2}, nil)
		}, "ok ok EACCES EACCES EACCES"},
		{"unstuff", func(s *scene) error { return s.unstuff() }, "ok ok EACCES EACCES EACCES"},
		{"flush", func(s *scene) error { return s.ask(s.df, nil, &wire.FlushReq{Handle: s.df, FSID: s.fsid}, nil) }, "ok ok ok ok ok"},
		{"file size", func(s *scene) error {
			return s.ask(s.df, nil, &wire.TreeGetFileSizeReq{FSID: s.fsid, Cred: s.as.cred(), Handles: []wire.Handle{s.df}}, &wire.TreeGetFileSizeResp{})
		}, "ok ok ok ok ok"},
		{"tree getattr", func(s *scene) error {
			return s.ask(s.df, nil, &wire.TreeGetAttrReq{FSID: s.fsid, Cred: s.as.cred(), Mask: wire.AttrCommon, Handles: []wire.Handle{s.dd}}, &wire.TreeGetAttrResp{})
		}, "ok ok ok ok ok"},
		{"get a missing attribute", func(s *scene) error { return s.geteattr(s.f, "user.none") }, "ENOENT ENOENT ENOENT ENOENT ENOENT"},
		{"set an attribute", func(s *scene) error { return s.seteattr(s.f, "user.a", 0) }, "ok ok EACCES EACCES EACCES"},
		{"set an attribute of a directory", func(s *scene) error { return s.seteattr(s.d, "user.a", 0) }, "ok ok EACCES EACCES EACCES"},
		{"set a wish", func(s *scene) error { return s.seteattr(s.d, "user.pvfs2.num_dfiles", 0) }, "ok ok EACCES EACCES EACCES"},
		{"list attributes", func(s *scene) error {
			return s.ask(s.f, s.cap(s.f), &wire.ListEattrReq{Handle: s.f, FSID: s.fsid, Token: wire.TokenStart, Rooms: []int64{256}}, &wire.ListEattrResp{})
		}, "ok ok ok ok ok"},
		{"delete an attribute", func(s *scene) error {
			if err := s.to(s.f, s.everything(s.f), s.f, &wire.SetEattrReq{Handle: s.f, FSID: s.fsid, Keys: keys("user.a"), Values: keys("v")}, nil); err != nil {
				return err
			}
			return s.ask(s.f, s.cap(s.f), &wire.DelEattrReq{Handle: s.f, FSID: s.fsid, Key: keys("user.a")[0]}, nil)
		}, "ok ok EACCES EACCES EACCES"},
		{"statfs", func(s *scene) error { return s.ask(s.f, nil, &wire.StatFSReq{FSID: s.fsid}, &wire.StatFSResp{}) }, "ok ok ok ok ok"},
		{"noop", func(s *scene) error { return s.ask(s.f, nil, &wire.NoopReq{}, nil) }, "ok ok ok ok ok"},
		{"iterate handles", func(s *scene) error {
			return s.ask(s.f, nil, &wire.IterateHandlesReq{FSID: s.fsid, Count: 5, Position: wire.TokenStart}, &wire.IterateHandlesResp{})
		}, "ok ok ok ok ok"},
		{"get dirent", func(s *scene) error { return s.getDirent(s.dd, "f") }, "ok ok ok ok ok"},
		{"dirdata handle", func(s *scene) error {
			return s.ask(s.d, nil, &wire.GetDirdataHandleReq{Handle: s.d, FSID: s.fsid}, &wire.GetDirdataHandleResp{})
		}, "ENOENT ENOENT ENOENT ENOENT ENOENT"},
		{"remove object", func(s *scene) error {
			return s.ask(s.f, s.cap(s.f), &wire.RemoveObjectReq{Handle: s.f, FSID: s.fsid}, nil)
		}, "ok ok ok ok ok"},
		{"remove dirent", func(s *scene) error {
			return s.ask(s.dd, s.cap(s.d), &wire.RemoveDirentReq{Dirdata: s.dd, FSID: s.fsid, Name: "f"}, nil)
		}, "ok ok ok ok ok"},
	}
}

// missing is a handle that the servers of h own and no object has.
func missing(h wire.Handle) wire.Handle { return h ^ 1<<40 }

// mistakes are attempts of the superuser with all rights.
func mistakes() []attempt {
	return []attempt{
		{"getattr of nothing", func(s *scene) error { return s.getattr(missing(s.f), s.fsid) }, "ENOENT"},
		{"getattr of a datafile that is missing", func(s *scene) error { return s.getattr(missing(s.df), s.fsid) }, "ENOENT"},
		{"getattr in another file system", func(s *scene) error { return s.getattr(s.f, s.fsid+1000) }, "EINVAL"},
		{"getattr without groups", func(s *scene) error {
			return s.ask(s.f, nil, &wire.GetAttrReq{Handle: s.f, FSID: s.fsid, Mask: wire.AttrAll, Cred: wire.Credential{Issuer: "C:x", Timeout: s.as.cred().Timeout}}, &wire.GetAttrResp{})
		}, "ok"},
		{"getattr of a user without groups", func(s *scene) error {
			return s.ask(s.f, nil, &wire.GetAttrReq{Handle: s.f, FSID: s.fsid, Mask: wire.AttrAll, Cred: user{uid: stranger.uid}.cred()}, &wire.GetAttrResp{})
		}, "EINVAL"},
		{"listattr of nothing", func(s *scene) error {
			return s.ask(s.f, nil, &wire.ListAttrReq{FSID: s.fsid, Mask: wire.AttrAll, Handles: []wire.Handle{missing(s.f)}}, &wire.ListAttrResp{})
		}, "ENOENT"},
		{"setattr of nothing", func(s *scene) error { return s.set(missing(s.f), wire.Attr{Perms: 0o600, Mask: wire.AttrPerm}) }, "ENOENT"},
		{"setattr of a datafile", func(s *scene) error {
			return s.set(s.df, wire.Attr{Perms: 0o600, Mask: wire.AttrPerm | wire.AttrType, Type: wire.TypeDatafile})
		}, "ok"},
		{"lookup below a file", func(s *scene) error { return s.lookupFrom(s.f, "x") }, "ENOENT"},
		{"lookup below a file by path", func(s *scene) error { return s.lookup("f/x") }, "ok"},
		{"lookup from nothing", func(s *scene) error { return s.lookupFrom(missing(s.d), "x") }, "ENOENT"},
		{"lookup of a long name", func(s *scene) error { return s.lookup(strings.Repeat("n", 255)) }, "ENOENT"},
		{"readdir of a file", func(s *scene) error { return s.readdir(s.f) }, "ok"},
		{"readdir of nothing", func(s *scene) error { return s.readdir(missing(s.dd)) }, "ENOENT"},
		{"readdir of none", func(s *scene) error {
			return s.all(s.dd, &wire.ReadDirReq{Dirdata: s.dd, FSID: s.fsid, Token: wire.TokenStart}, &wire.ReadDirResp{})
		}, "ok"},
		{"create an entry twice", func(s *scene) error { return s.crdirent("f") }, "EEXIST"},
		{"create an entry in nothing", func(s *scene) error {
			return s.all(missing(s.dd), &wire.CrDirentReq{Cred: s.as.cred(), Name: "x", Handle: s.f, Parent: s.d, Dirdata: missing(s.dd), FSID: s.fsid}, nil)
		}, "ENOENT"},
		{"create an entry of nothing", func(s *scene) error {
			return s.all(s.dd, &wire.CrDirentReq{Cred: s.as.cred(), Name: "x", Handle: missing(s.f), Parent: s.d, Dirdata: s.dd, FSID: s.fsid}, nil)
		}, "ENOENT"},
		{"remove a missing entry", func(s *scene) error { return s.rmdirent("x") }, "ENOENT"},
		{"change a missing entry", func(s *scene) error { return s.chdirent("x") }, "ENOENT"},
		{"remove nothing", func(s *scene) error { return s.remove(missing(s.f), s.d) }, "ENOENT"},
		{"remove a full directory", func(s *scene) error { return s.remove(s.d, s.d) }, "ENOTEMPTY"},
		{"remove a full bucket", func(s *scene) error { return s.remove(s.dd, s.d) }, "ENOTEMPTY"},
		{"remove an object without a hint", func(s *scene) error {
			return s.askAbout(s.f, s.everything(s.d), 0, &wire.RemoveReq{Handle: s.f, FSID: s.fsid, Cred: s.as.cred()}, nil)
		}, "EINVAL"},
		{"remove by another directory's right", func(s *scene) error {
			return s.askAbout(s.f, s.everything(s.dd), s.d, &wire.RemoveReq{Handle: s.f, FSID: s.fsid, Cred: s.as.cred()}, nil)
		}, "EACCES"},
		{"small read without a hint", func(s *scene) error {
			return s.askAbout(s.df, s.everything(s.f), 0, s.small(wire.IORead), &wire.SmallIOResp{})
		}, "EINVAL"},
		{"small read by another file's right", func(s *scene) error {
			return s.askAbout(s.df, s.everything(s.df), s.f, s.small(wire.IORead), &wire.SmallIOResp{})
		}, "EACCES"},
		{"small read of nothing", func(s *scene) error {
			req := s.small(wire.IORead)
			req.Handle = missing(s.df)
			return s.askAbout(req.Handle, s.everything(s.f), s.f, req, &wire.SmallIOResp{})
		}, "ENOENT"},
		{"small write to nothing", func(s *scene) error {
			req := s.small(wire.IOWrite)
			req.Handle = missing(s.df)
			return s.askAbout(req.Handle, s.everything(s.f), s.f, req, &wire.SmallIOResp{})
		}, "ENOENT"},
		{"read of nothing", func(s *scene) error {
			req := s.flow(wire.IORead)
			req.Handle = missing(s.df)
			return s.askAbout(req.Handle, s.everything(s.f), s.f, req, &wire.IOResp{})
		}, "ENOENT"},
		{"write to nothing", func(s *scene) error {
			req := s.flow(wire.IOWrite)
			req.Handle = missing(s.df)
			return s.askAbout(req.Handle, s.everything(s.f), s.f, req, &wire.IOResp{})
		}, "ENOENT"},
		{"truncate nothing", func(s *scene) error {
			return s.all(missing(s.df), &wire.TruncateReq{Handle: missing(s.df), FSID: s.fsid, Size: 2}, nil)
		}, "ENOENT"},
		{"truncate to less than nothing", func(s *scene) error { return s.all(s.df, &wire.TruncateReq{Handle: s.df, FSID: s.fsid, Size: -2}, nil) }, "EINVAL"},
		{"truncate a file's metadata", func(s *scene) error { return s.all(s.f, &wire.TruncateReq{Handle: s.f, FSID: s.fsid, Size: 2}, nil) }, "ok"},
		{"flush nothing", func(s *scene) error {
			return s.all(missing(s.df), &wire.FlushReq{Handle: missing(s.df), FSID: s.fsid}, nil)
		}, "ENOENT"},
		{"unstuff twice", func(s *scene) error {
			if err := s.unstuff(); err != nil {
				return err
			}
			return s.unstuff()
		}, "ok"},
		{"unstuff a directory", func(s *scene) error {
			return s.all(s.d, &wire.UnstuffReq{Handle: s.d, FSID: s.fsid, Mask: 0x402c40, Cred: s.as.cred()}, &wire.UnstuffResp{})
		}, "ENOENT"},
		{"unstuff nothing", func(s *scene) error {
			return s.all(missing(s.f), &wire.UnstuffReq{Handle: missing(s.f), FSID: s.fsid, Mask: 0x402c40, Cred: s.as.cred()}, &wire.UnstuffResp{})
		}, "ENOENT"},
		{"attribute of nothing", func(s *scene) error { return s.geteattr(missing(s.f), "user.a") }, "ENOENT"},
		{"attribute without a prefix", func(s *scene) error { return s.geteattr(s.f, "a") }, "ENOENT"},
		{"set an attribute without a prefix", func(s *scene) error { return s.seteattr(s.f, "a", 0) }, "ENOTSUP"},
		{"set an attribute of nothing", func(s *scene) error { return s.seteattr(missing(s.f), "user.a", 0) }, "ENOENT"},
		{"replace a missing attribute", func(s *scene) error { return s.seteattr(s.f, "user.a", 2) }, "ENOENT"},
		{"delete a missing attribute", func(s *scene) error {
			return s.all(s.f, &wire.DelEattrReq{Handle: s.f, FSID: s.fsid, Key: keys("user.a")[0]}, nil)
		}, "ENOENT"},
		{"list attributes of nothing", func(s *scene) error {
			return s.all(missing(s.f), &wire.ListEattrReq{Handle: missing(s.f), FSID: s.fsid, Token: wire.TokenStart, Rooms: []int64{256}}, &wire.ListEattrResp{})
		}, "ENOENT"},
		{"statfs of another file system", func(s *scene) error { return s.all(s.f, &wire.StatFSReq{FSID: s.fsid + 1000}, &wire.StatFSResp{}) }, "ENOENT"},
		{"create in another file system", func(s *scene) error {
			return s.all(s.d, &wire.MkdirReq{FSID: s.fsid + 1000, Cred: s.as.cred(), Attr: wire.Attr{Perms: 0o755, Type: wire.TypeDirectory, Mask: wire.AttrCommon}, Ranges: s.metaRanges(s.d)}, &wire.MkdirResp{})
		}, "EINVAL"},
		{"remove object that is missing", func(s *scene) error {
			return s.all(s.f, &wire.RemoveObjectReq{Handle: missing(s.f), FSID: s.fsid}, nil)
		}, "ENOENT"},
		{"remove dirent that is missing", func(s *scene) error {
			return s.all(s.dd, &wire.RemoveDirentReq{Dirdata: s.dd, FSID: s.fsid, Name: "x"}, nil)
		}, "ENOENT"},
		{"dirdata handle of a file", func(s *scene) error {
			return s.all(s.f, &wire.GetDirdataHandleReq{Handle: s.f, FSID: s.fsid}, &wire.GetDirdataHandleResp{})
		}, "ENOENT"},
		{"get a dirent that is missing", func(s *scene) error { return s.getDirent(s.dd, "x") }, "ENOENT"},
		{"get a dirent of a bucket that is missing", func(s *scene) error { return s.getDirent(missing(s.dd), "x") }, "ENOENT"},
		{"ask for a file system that is not", func(s *scene) error { return s.param(wire.ParamFSIDCheck, 4242) }, "ENOENT"},
		{"sizes of missing datafiles", func(s *scene) error { return s.treeSize(missing(s.df)) }, "ok"},
		{"sizes of no datafile", func(s *scene) error { return s.treeSize(s.f) }, "ok"},
		{"attributes of a missing bucket", func(s *scene) error { return s.treeAttr(missing(s.dd)) }, "ok"},
		{"tree remove of nothing", func(s *scene) error { return s.treeRemove(missing(s.df)) }, "ENOENT"},
	}
}

// times are attempts of the superuser and which times they change.
func times() []attempt {
	return []attempt{
		{"nothing", func(*scene) error { return nil }, ""},
		{"small read", func(s *scene) error {
			return s.askAbout(s.df, s.cap(s.f), s.f, s.small(wire.IORead), &wire.SmallIOResp{})
		}, ""},
		{"small write", func(s *scene) error {
			return s.askAbout(s.df, s.cap(s.f), s.f, s.small(wire.IOWrite), &wire.SmallIOResp{})
		}, ""},
		{"write", func(s *scene) error { return s.io(s.cap(s.f), s.flow(wire.IOWrite), 4) }, ""},
		{"truncate", func(s *scene) error {
			return s.ask(s.df, s.cap(s.f), &wire.TruncateReq{Handle: s.df, FSID: s.fsid, Size: 2}, nil)
		}, ""},
		{"chmod of a file", func(s *scene) error { return s.setattr(s.f, wire.Attr{Perms: 0o600, Mask: wire.AttrPerm}) }, "f:c"},
		{"chmod of a directory", func(s *scene) error { return s.setattr(s.d, wire.Attr{Perms: 0o700, Mask: wire.AttrPerm}) }, "d:c"},
		{"chown of a file", func(s *scene) error { return s.setattr(s.f, wire.Attr{UID: 7, Mask: wire.AttrUID}) }, "f:c"},
		{"touch mtime of a file", func(s *scene) error { return s.setattr(s.f, wire.Attr{Mask: wire.AttrMtime}) }, "f:mc"},
		{"touch atime of a file", func(s *scene) error { return s.setattr(s.f, wire.Attr{Mask: wire.AttrAtime}) }, "f:a"},
		{"touch ctime of a file", func(s *scene) error { return s.setattr(s.f, wire.Attr{Mask: wire.AttrCtime}) }, "f:c"},
		{"touch a directory", func(s *scene) error { return s.setattr(s.d, wire.Attr{Mask: wire.AttrMtime | wire.AttrAtime}) }, "d:amc"},
		{"utimes of a file", func(s *scene) error {
			return s.setattr(s.f, wire.Attr{Mtime: 5, Atime: 6, Mask: wire.AttrMtime | wire.AttrMtimeSet | wire.AttrAtime | wire.AttrAtimeSet})
		}, "f:amc"},
		{"utimes of a directory", func(s *scene) error {
			return s.setattr(s.d, wire.Attr{Mtime: 5, Atime: 6, Mask: wire.AttrMtime | wire.AttrMtimeSet | wire.AttrAtime | wire.AttrAtimeSet})
		}, "d:amc"},
		{"set an attribute", func(s *scene) error { return s.seteattr(s.f, "user.a", 0) }, ""},
		{"lookup", func(s *scene) error { return s.lookup("f") }, ""},
		{"readdir", func(s *scene) error { return s.readdir(s.dd) }, ""},
		{"crdirent", func(s *scene) error { return s.crdirent("new") }, "b:mc f:c"},
		{"rmdirent", func(s *scene) error { return s.rmdirent("f") }, "b:mc"},
		{"chdirent", func(s *scene) error { return s.chdirent("f") }, "b:amc"},
		{"unstuff", func(s *scene) error { return s.unstuff() }, ""},
		{"flush", func(s *scene) error { return s.ask(s.df, nil, &wire.FlushReq{Handle: s.df, FSID: s.fsid}, nil) }, ""},
	}
}

// mask is what is asked of an object's attributes and what comes: its type, the
// mask, permissions and owner.
type mask struct {
	object string
	ask    wire.AttrMask
	want   string
}

var masks = []mask{
	{"directory", wire.AttrAll, "directory 0x70007f 0750 1001"},
	{"directory", wire.AttrCommon, "directory 0x7f 0750 1001"},
	{"directory", wire.AttrDirentCount, "directory 0x7f 0750 1001"},
	{"directory", 0, "directory 0x7f 0750 1001"},
	{"directory", 0x782c7f, "directory 0x70007f 0750 1001"},
	{"bucket", wire.AttrAll, "dirdata 0x48007f 0750 1001"},
	{"bucket", wire.AttrCommon, "dirdata 0x7f 0750 1001"},
	{"bucket", 0x8007f, "dirdata 0x8007f 0750 1001"},
	{"file", wire.AttrAll, "metafile 0x401c7f 0640 1001"},
	{"file", wire.AttrCommon, "metafile 0x7f 0640 1001"},
	{"file", wire.AttrDist, "metafile 0x147f 0640 1001"},
	{"file", wire.AttrDFiles, "metafile 0x187f 0640 1001"},
	{"file", wire.AttrSize, "metafile 0x7f 0640 1001"},
	{"file", 0, "metafile 0x7f 0640 1001"},
	{"striped", wire.AttrAll, "metafile 0x400c7f 0640 1001"},
	{"striped", wire.AttrCommon, "metafile 0x7f 0640 1001"},
	{"striped", wire.AttrDFiles, "metafile 0x87f 0640 1001"},
	{"datafile", wire.AttrAll, "datafile 0x40807f 0000 0"},
	{"datafile", wire.AttrSize, "datafile 0x807f 0000 0"},
	{"datafile", wire.AttrCommon, "datafile 0x807f 0000 0"},
	{"symlink", wire.AttrAll, "symlink 0x44007f 0777 1001"},
	{"symlink", wire.AttrCommon, "symlink 0x7f 0777 1001"},
	{"symlink", wire.AttrTarget, "symlink 0x4007f 0777 1001"},
}

// listMasks is masks for LISTATTR.
var listMasks = []mask{
	{"directory", wire.AttrAll, "directory 0x30007f 0750 1001"},
	{"bucket", 0x8007f, "dirdata 0x8007f 0750 1001"},
	{"file", wire.AttrAll, "metafile 0x1c7f 0640 1001"},
	{"file", 0x3cac7f, "metafile 0x1c7f 0640 1001"},
	{"striped", 0x3cac7f, "metafile 0xc7f 0640 1001"},
	{"datafile", wire.AttrSize, "datafile 0x807f 0000 0"},
	{"symlink", 0x3cac7f, "symlink 0x4007f 0777 1001"},
}

// capabilities are those of the superuser, the owner, a member of the group and
// a stranger, each for directory, file and symlink: rights, number of handles.
const capabilities = "ffffffff/2 ffffffaf/2 ffffffaf/1 5f/2 e/2 f/1 5/2 4/2 7/1 0/2 0/2 7/1"

// onPurpose is what embedded servers do otherwise, by the name of the test.
var onPurpose = map[string]string{
	// What makes no sense for an object's type is refused.
	"Mistakes/readdir of a file":          "ENOTDIR",
	"Mistakes/truncate a file's metadata": "EINVAL",
	"Mistakes/unstuff a directory":        "EISDIR",
	// What is missing has no size.
	"Mistakes/sizes of missing datafiles":     "ENOENT",
	"Mistakes/sizes of no datafile":           "EINVAL",
	"Mistakes/attributes of a missing bucket": "ENOENT",
	// Whether what an entry names exists is its maker's business: it may be
	// that another server has it, which is down.
	"Mistakes/create an entry of nothing": "ok",
	// Else a directory's mtime could not be set to before its last change.
	"Times/touch a directory":     "d:amc b:mc",
	"Times/utimes of a directory": "d:amc b:mc",
	// As POSIX has it.
	"Times/set an attribute": "f:c",
	"Times/chdirent":         "b:mc",
}
