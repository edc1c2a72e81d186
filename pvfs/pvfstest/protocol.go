package pvfstest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// RunProtocol sends requests of every kind that clients send to the servers of
// the file system at url, as several users, right and wrong ones, and compares
// what becomes of them with the tables, which are what OrangeFS 2.10 does; what
// embedded servers do differently on purpose is listed in onPurpose.
func RunProtocol(t *testing.T, url string, embedded bool) {
	r := dialRaw(t, url)
	r.embedded = embedded
	t.Run("Rights", func(t *testing.T) { r.with(t).testRights(t) })
	t.Run("Mistakes", func(t *testing.T) { r.with(t).testMistakes(t) })
	t.Run("Times", func(t *testing.T) { r.with(t).testTimes(t) })
	t.Run("Masks", func(t *testing.T) { r.with(t).testMasks(t) })
}

func (r *raw) with(t testing.TB) *raw {
	c := *r
	c.t = t
	return &c
}

// same compares the outcome of an attempt of a test.
func (r *raw) same(t *testing.T, test, name, want, got string) {
	if other, ok := onPurpose[test+"/"+name]; ok && r.embedded {
		want = other
	}
	require.Equal(t, want, got)
}

// attempt is a request on a scene.
type attempt struct {
	name string
	do   func(s *scene) error
	want string
}

// testRights makes every attempt in a new scene: as the superuser, as the owner
// of its objects, as a member of their group, as a stranger, each with the
// capabilities that servers give them, and with the null capability.
func (r *raw) testRights(t *testing.T) {
	for _, a := range rights() {
		t.Run(a.name, func(t *testing.T) {
			var got []string
			for _, as := range []user{superuser, owner, member, stranger, superuser} {
				s := r.with(t).newScene(as)
				s.null = len(got) == 4
				got = append(got, outcome(a.do(s)))
				s.drop()
			}
			r.same(t, "Rights", a.name, a.want, strings.Join(got, " "))
		})
	}
}

// testMistakes makes the superuser ask for what makes no sense.
func (r *raw) testMistakes(t *testing.T) {
	for _, a := range mistakes() {
		t.Run(a.name, func(t *testing.T) {
			s := r.with(t).newScene(superuser)
			defer s.drop()
			r.same(t, "Mistakes", a.name, a.want, outcome(a.do(s)))
		})
	}
}

// testTimes compares which times of the directory, its bucket and the file an
// attempt changes: a, m and c of d, b and f. Atime and mtime are 1000 before.
func (r *raw) testTimes(t *testing.T) {
	list := times()
	scenes := make([]*scene, len(list))
	for i := range list {
		scenes[i] = r.with(t).newScene(superuser)
		defer scenes[i].drop()
		for _, h := range []wire.Handle{scenes[i].f, scenes[i].d} {
			at := wire.Attr{Atime: 1000, Mtime: 1000, Mask: wire.AttrAtime | wire.AttrAtimeSet | wire.AttrMtime | wire.AttrMtimeSet | wire.AttrType}
			require.NoError(t, scenes[i].set(h, at))
		}
	}
	time.Sleep(2100 * time.Millisecond) // times are whole seconds
	for i, a := range list {
		t.Run(a.name, func(t *testing.T) {
			s := scenes[i]
			var before [3]wire.Attr
			for k, h := range []wire.Handle{s.d, s.dd, s.f} {
				before[k] = s.attr(h, wire.AttrCommon)
			}
			require.NoError(t, a.do(s))
			var got []string
			for k, h := range []wire.Handle{s.d, s.dd, s.f} {
				was, is := before[k], s.attr(h, wire.AttrCommon)
				changed := ""
				for _, x := range []struct {
					name    string
					was, is int64
				}{{"a", was.Atime, is.Atime}, {"m", was.Mtime, is.Mtime}, {"c", was.Ctime, is.Ctime}} {
					if x.was != x.is {
						changed += x.name
					}
				}
				if changed != "" {
					got = append(got, string("dbf"[k])+":"+changed)
				}
			}
			r.same(t, "Times", a.name, a.want, strings.Join(got, " "))
		})
	}
}

// testMasks compares which attributes of which object servers give when all are
// asked for, or few.
func (r *raw) testMasks(t *testing.T) {
	s := r.with(t).newScene(owner)
	defer s.drop()
	link := s.symlink(t, "target")
	many := s.newFile(2)
	s.made = append(s.made, link, many.Handle)
	s.made = append(s.made, many.Attr.DFiles...)
	objects := map[string]wire.Handle{"directory": s.d, "bucket": s.dd, "file": s.f, "datafile": s.df, "symlink": link, "striped": many.Handle}
	for _, m := range masks {
		t.Run(fmt.Sprintf("%s %#x", m.object, uint32(m.ask)), func(t *testing.T) {
			a := s.with(t).attrAs(objects[m.object], m.ask, owner)
			require.Equal(t, m.want, m.shown(&a))
		})
	}
	for _, m := range listMasks {
		t.Run(fmt.Sprintf("LISTATTR %s %#x", m.object, uint32(m.ask)), func(t *testing.T) {
			var resp wire.ListAttrResp
			h := objects[m.object]
			require.NoError(t, s.to(h, nil, 0, &wire.ListAttrReq{FSID: s.fsid, Mask: m.ask, Handles: []wire.Handle{h}}, &resp))
			a := resp.Attrs[0]
			require.Equal(t, m.want, m.shown(&a))
		})
	}
	t.Run("capabilities", func(t *testing.T) {
		var got []string
		for _, as := range []user{superuser, owner, member, stranger} {
			for _, h := range []wire.Handle{s.d, s.f, link} {
				c := s.attrAs(h, wire.AttrAll, as).Cap
				got = append(got, fmt.Sprintf("%x/%d", uint32(c.Ops), len(c.Handles)))
			}
		}
		require.Equal(t, capabilities, strings.Join(got, " "))
	})
}

// shown is how want is written down. Whether a new file of several datafiles is
// stuffed is the file system's choice.
func (m *mask) shown(a *wire.Attr) string {
	if m.object == "striped" {
		a.Mask &^= wire.AttrUnstuffed
	}
	return fmt.Sprintf("%v %#x %04o %d", a.Type, uint32(a.Mask), a.Perms, a.UID)
}

func (s *scene) set(h wire.Handle, a wire.Attr) error {
	return s.to(h, s.everything(h), h, &wire.SetAttrReq{Handle: h, FSID: s.fsid, Attr: a, Cred: superuser.cred()}, nil)
}

func (r *raw) attr(h wire.Handle, mask wire.AttrMask) wire.Attr { return r.attrAs(h, mask, superuser) }

func (r *raw) attrAs(h wire.Handle, mask wire.AttrMask, as user) wire.Attr {
	var resp wire.GetAttrResp
	require.NoError(r.t, r.to(h, nil, 0, &wire.GetAttrReq{Handle: h, FSID: r.fsid, Mask: mask, Cred: as.cred()}, &resp))
	return resp.Attr
}

// symlink makes one of owner's without a name.
func (s *scene) symlink(t testing.TB, target string) wire.Handle {
	var made wire.BatchCreateResp
	require.NoError(t, s.to(s.d, s.everything(s.d), 0, &wire.BatchCreateReq{FSID: s.fsid, Type: wire.TypeSymlink, Count: 1, Ranges: s.metaRanges(s.d)}, &made))
	h := made.Handles[0]
	a := wire.Attr{UID: owner.uid, GID: owner.gids[0], Perms: 0o777, Type: wire.TypeSymlink, Mask: wire.AttrCommon | wire.AttrTarget, Target: target}
	require.NoError(t, s.set(h, a))
	return h
}
