package pvfstest

import "github.com/zoidfs/zoidfs/pvfs/wire"

// ask sends a request with a hint about the same object.
func (s *scene) ask(at wire.Handle, cap *wire.Capability, req wire.Request, resp wire.Response) error {
	return s.to(at, cap, at, req, resp)
}

func (s *scene) askAbout(at wire.Handle, cap *wire.Capability, obj wire.Handle, req wire.Request, resp wire.Response) error {
	return s.to(at, cap, obj, req, resp)
}

// all is ask with all rights.
func (s *scene) all(at wire.Handle, req wire.Request, resp wire.Response) error {
	return s.to(at, s.everything(at), at, req, resp)
}

func (s *scene) getattr(h wire.Handle, fsid wire.FSID) error {
	return s.ask(h, nil, &wire.GetAttrReq{Handle: h, FSID: fsid, Mask: wire.AttrAll, Cred: s.as.cred()}, &wire.GetAttrResp{})
}

// setattr is set as the scene's user.
func (s *scene) setattr(h wire.Handle, a wire.Attr) error {
	a.Mask |= wire.AttrType
	return s.ask(h, s.cap(h), &wire.SetAttrReq{Handle: h, FSID: s.fsid, Attr: a, Cred: s.as.cred()}, nil)
}

// setShared is setattr of the file once the group may write to it.
func (s *scene) setShared(a wire.Attr) error {
	if err := s.set(s.f, wire.Attr{Perms: 0o660, Mask: wire.AttrPerm | wire.AttrType}); err != nil {
		return err
	}
	return s.setattr(s.f, a)
}

// newSymlink makes one as clients do: the object first, by the right to the
// directory, then what it says, by the right to that.
func (s *scene) newSymlink() error {
	var made wire.BatchCreateResp
	if err := s.ask(s.d, s.cap(s.d), &wire.BatchCreateReq{FSID: s.fsid, Type: wire.TypeSymlink, Count: 1, Ranges: s.metaRanges(s.d)}, &made); err != nil {
		return err
	}
	h := made.Handles[0]
	s.made = append(s.made, h)
	var at wire.GetAttrResp
	if err := s.ask(h, nil, &wire.GetAttrReq{Handle: h, FSID: s.fsid, Mask: wire.AttrAll &^ wire.AttrTarget, Cred: s.as.cred()}, &at); err != nil {
		return err
	}
	return s.ask(h, &at.Attr.Cap, &wire.SetAttrReq{Handle: h, FSID: s.fsid, Cred: s.as.cred(), Attr: wire.Attr{UID: s.as.uid, GID: s.as.gids[0], Perms: 0o777, Type: wire.TypeSymlink,
		Mask: wire.AttrCommon | wire.AttrTarget, Target: "target"}}, nil)
}

func (s *scene) lookup(path string) error {
	return s.ask(s.d, s.cap(s.d), &wire.LookupPathReq{Path: path, FSID: s.fsid, Start: s.d, Mask: wire.AttrCommon, Cred: s.as.cred()}, &wire.LookupPathResp{})
}

func (s *scene) lookupFrom(h wire.Handle, path string) error {
	return s.all(h, &wire.LookupPathReq{Path: path, FSID: s.fsid, Start: h, Mask: wire.AttrCommon, Cred: s.as.cred()}, &wire.LookupPathResp{})
}

// readdir is of a bucket, by the right to its directory if it is the scene's.
func (s *scene) readdir(h wire.Handle) error {
	req := &wire.ReadDirReq{Dirdata: h, FSID: s.fsid, Count: 10, Token: wire.TokenStart}
	if h != s.dd {
		return s.all(h, req, &wire.ReadDirResp{})
	}
	return s.ask(h, s.cap(s.d), req, &wire.ReadDirResp{})
}

func (s *scene) create(n int32) error {
	a := wire.Attr{UID: s.as.uid, GID: s.as.gids[0], Perms: 0o644, Type: wire.TypeMetafile, Dist: wire.NewSimpleStripe(65536),
		Mask: wire.AttrCommon | wire.AttrDist | wire.AttrDFiles | wire.AttrMirrors}
	var resp wire.CreateResp
	err := s.ask(s.d, s.cap(s.d), &wire.CreateReq{FSID: s.fsid, Cred: s.as.cred(), Attr: a, NumDFiles: n, Layout: wire.Layout{Type: wire.LayoutRoundRobin}}, &resp)
	if err == nil {
		s.made = append(append(s.made, resp.Handle), resp.Attr.DFiles...)
	}
	return err
}

func (s *scene) mkdir() error {
	a := wire.Attr{UID: s.as.uid, GID: s.as.gids[0], Perms: 0o755, Type: wire.TypeDirectory, Mask: wire.AttrCommon | wire.AttrDirHint}
	var resp wire.MkdirResp
	err := s.ask(s.d, s.cap(s.d), &wire.MkdirReq{FSID: s.fsid, Cred: s.as.cred(), Attr: a, Ranges: s.metaRanges(s.d), ServersInitial: 1, ServersMax: 1}, &resp)
	if err == nil {
		s.made = append(s.made, resp.Handle)
	}
	return err
}

// batch makes objects; datafiles on the server of the scene's.
func (s *scene) batch(typ wire.ObjType, n uint32) error {
	at, ranges := s.d, s.metaRanges(s.d)
	if typ == wire.TypeDatafile {
		at, ranges = s.df, s.dataRanges(s.df)
	}
	var resp wire.BatchCreateResp
	err := s.ask(at, s.cap(s.d), &wire.BatchCreateReq{FSID: s.fsid, Type: typ, Count: n, Ranges: ranges}, &resp)
	s.made = append(s.made, resp.Handles...)
	return err
}

func (s *scene) crdirent(name string) error {
	return s.askAbout(s.dd, s.cap(s.d), s.d, &wire.CrDirentReq{Cred: s.as.cred(), Name: name, Handle: s.f, Parent: s.d, Dirdata: s.dd, FSID: s.fsid}, nil)
}

func (s *scene) rmdirent(name string) error {
	return s.askAbout(s.dd, s.cap(s.d), s.d, &wire.RmDirentReq{Name: name, Dirdata: s.dd, FSID: s.fsid}, &wire.RmDirentResp{})
}

func (s *scene) chdirent(name string) error {
	return s.askAbout(s.dd, s.cap(s.d), s.d, &wire.ChDirentReq{Name: name, Handle: s.d, Dirdata: s.dd, FSID: s.fsid}, &wire.ChDirentResp{})
}

func (s *scene) remove(h, dir wire.Handle) error {
	return s.askAbout(h, s.cap(dir), dir, &wire.RemoveReq{Handle: h, FSID: s.fsid, Cred: s.as.cred()}, nil)
}

// treeRemove returns the first failure of an object.
func (s *scene) treeRemove(hs ...wire.Handle) error {
	var resp wire.TreeStatusResp
	err := s.askAbout(hs[0], s.cap(s.d), s.d, &wire.TreeRemoveReq{FSID: s.fsid, Cred: s.as.cred(), Handles: hs}, &resp)
	return firstOf(err, resp.Statuses)
}

func (s *scene) treeSize(h wire.Handle) error {
	var resp wire.TreeGetFileSizeResp
	err := s.ask(h, nil, &wire.TreeGetFileSizeReq{FSID: s.fsid, Cred: s.as.cred(), Handles: []wire.Handle{h}}, &resp)
	return firstOf(err, resp.Statuses)
}

func (s *scene) treeAttr(h wire.Handle) error {
	var resp wire.TreeGetAttrResp
	err := s.ask(h, nil, &wire.TreeGetAttrReq{FSID: s.fsid, Cred: s.as.cred(), Mask: wire.AttrCommon, Handles: []wire.Handle{h}}, &resp)
	return firstOf(err, resp.Statuses)
}

func firstOf(err error, statuses []wire.Status) error {
	for _, st := range statuses {
		if err == nil {
			err = st.Err("tree")
		}
	}
	return err
}

func (s *scene) flow(dir wire.IOType) *wire.IOReq {
	return &wire.IOReq{Handle: s.df, FSID: s.fsid, Dir: dir, ServerCt: 1, Dist: wire.NewSimpleStripe(65536), Type: wire.Contiguous(4), Aggregate: 4}
}

func (s *scene) unstuff() error {
	var resp wire.UnstuffResp
	err := s.ask(s.f, s.cap(s.f), &wire.UnstuffReq{Handle: s.f, FSID: s.fsid, Mask: 0x402c40, Cred: s.as.cred()}, &resp)
	if err == nil {
		s.made = append(s.made, resp.Attr.DFiles...)
	}
	return err
}

func keys(k string) [][]byte { return [][]byte{append([]byte(k), 0)} }

func (s *scene) geteattr(h wire.Handle, key string) error {
	return s.ask(h, nil, &wire.GetEattrReq{Handle: h, FSID: s.fsid, Keys: keys(key), Rooms: []int64{100}}, &wire.GetEattrResp{})
}

func (s *scene) seteattr(h wire.Handle, key string, flags int32) error {
	cap := s.everything(h)
	if h == s.f || h == s.d {
		cap = s.cap(h)
	}
	return s.ask(h, cap, &wire.SetEattrReq{Handle: h, FSID: s.fsid, Flags: flags, Keys: keys(key), Values: keys("2")}, nil)
}

func (s *scene) getDirent(dd wire.Handle, name string) error {
	var resp wire.GetDirentResp
	err := s.ask(dd, nil, &wire.GetDirentReq{Dirdata: dd, FSID: s.fsid, Name: name}, &resp)
	return firstOf(err, []wire.Status{resp.Status})
}

func (s *scene) param(p wire.Param, v uint64) error {
	return s.ask(s.f, nil, &wire.SetParamReq{FSID: s.fsid, Param: p, Value: v}, nil)
}
