package pvfsd_test

import (
	"bufio"
	"compress/gzip"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/pvfs/fsconf"
	"github.com/zoidfs/zoidfs/pvfs/pvfsd/pvfsdtest"
	"github.com/zoidfs/zoidfs/pvfs/wire"
)

// exchange is one line of testdata/session.jsonl.gz.
type exchange struct {
	From     string `json:"from"`
	Server   int    `json:"server"`
	Request  string `json:"request"`
	Response string `json:"response"`
}

func session(t *testing.T) []exchange {
	f, err := os.Open("testdata/session.jsonl.gz")
	require.NoError(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	require.NoError(t, err)
	var out []exchange
	sc := bufio.NewScanner(z)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		var e exchange
		require.NoError(t, json.Unmarshal(sc.Bytes(), &e))
		out = append(out, e)
	}
	require.NoError(t, sc.Err())
	return out
}

// twin maps the handles of the recorded file system to those of ours.
type twin struct {
	ours  map[wire.Handle]wire.Handle
	diffs []string
}

var handleType = reflect.TypeFor[wire.Handle]()

// translate replaces the recorded handles in a request by ours.
func (w *twin) translate(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			w.translate(v.Elem())
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[wire.HandleRange]() {
			return
		}
		for i := range v.NumField() {
			w.translate(v.Field(i))
		}
		if h, ok := v.Addr().Interface().(*wire.Hint); ok && h.Type == wire.HintHandle {
			if mine, ok := w.ours[wire.Handle(h.Value)]; ok {
				h.Value = uint64(mine)
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			w.translate(v.Index(i))
		}
	case reflect.Uint64:
		if mine, ok := w.ours[wire.Handle(v.Uint())]; ok && v.Type() == handleType {
			v.SetUint(uint64(mine))
		}
	}
}

// free are the fields in which two file systems may differ.
var free = map[string]bool{
	"Atime": true, "Mtime": true, "Ctime": true, "Timeout": true, "Version": true, "Token": true, "DirentCount": true,
	"Dirents": true, // their order is the server's
}

// compare checks that got is what was recorded, and learns handles from it.
func (w *twin) compare(path string, want, got reflect.Value) {
	differ := func(format string, args ...any) { w.diffs = append(w.diffs, path+": "+fmt.Sprintf(format, args...)) }
	switch want.Kind() {
	case reflect.Pointer, reflect.Interface:
		if want.IsNil() || got.IsNil() {
			if want.IsNil() != got.IsNil() {
				differ("want %v, got %v", want, got)
			}
			return
		}
		w.compare(path, want.Elem(), got.Elem())
	case reflect.Struct:
		for i := range want.NumField() {
			name := want.Type().Field(i).Name
			if !free[name] {
				w.compare(path+"."+name, want.Field(i), got.Field(i))
			}
		}
	case reflect.Slice:
		if want.Len() != got.Len() {
			differ("want %d elements, got %d: %v, %v", want.Len(), got.Len(), want, got)
			return
		}
		for i := range want.Len() {
			w.compare(fmt.Sprintf("%s[%d]", path, i), want.Index(i), got.Index(i))
		}
	default:
		if want.Type() == handleType {
			theirs, mine := wire.Handle(want.Uint()), wire.Handle(got.Uint())
			if known, ok := w.ours[theirs]; ok && known != mine {
				differ("handle %d is %d, got %d", theirs, known, mine)
			}
			w.ours[theirs] = mine
			return
		}
		if !reflect.DeepEqual(want.Interface(), got.Interface()) {
			differ("want %v, got %v", want, got)
		}
	}
}

// target is the handle that decides which server gets a request.
func target(req wire.Request) (wire.Handle, bool) {
	v := reflect.ValueOf(req).Elem()
	if _, create := req.(*wire.CreateReq); create {
		return 0, false
	}
	for _, name := range []string{"Dirdata", "Start", "Handle"} {
		if f := v.FieldByName(name); f.IsValid() && f.Type() == handleType {
			return wire.Handle(f.Uint()), true
		}
	}
	if f := v.FieldByName("Handles"); f.IsValid() && f.Len() > 0 {
		return wire.Handle(f.Index(0).Uint()), true
	}
	return 0, false
}

// wanted are the differences that are meant.
var wanted = map[string]string{
	"20e_listeattr#24":    "the internal key of mirrors is not there",
	"20g_eattr_errors#28": "EattrCreate is enforced",
}

// Requests of real clients get the answers that real servers gave them.
func TestReplay(t *testing.T) {
	const fsID = 305419896
	cl := pvfsdtest.Start(t, 4, pvfsdtest.Options{Gen: func(o *fsconf.GenOptions) { o.FSID = fsID }})
	clients := make([]*client, 4)
	for i := range clients {
		clients[i] = dial(t, cl.Addr(i), cl.Config())
	}
	// What was there before: g on server 1, g/d1 on 3, g/d1/d2/d3/leaf, g/r1.
	mk := func(on *client, dir wire.Handle, in *client, name string) wire.Handle {
		h := on.mkdir()
		require.NoError(t, in.link(dir, in.dirdata(dir), name, h))
		return h
	}
	g := mk(clients[1], root, clients[0], "g")
	d1 := mk(clients[3], g, clients[1], "d1")
	d2 := mk(clients[3], d1, clients[3], "d2")
	d3 := mk(clients[3], d2, clients[3], "d3")
	leaf := clients[2].create(4, wire.LayoutRoundRobin)
	require.NoError(t, clients[3].link(d3, clients[3].dirdata(d3), "leaf", leaf.Handle))
	require.NoError(t, clients[2].writeSmall(leaf.Handle, leaf.Attr.DFiles[0], 0, make([]byte, 5000)))
	r1 := clients[0].create(4, wire.LayoutRoundRobin)
	require.NoError(t, clients[1].link(g, clients[1].dirdata(g), "r1", r1.Handle))

	w := &twin{ours: map[wire.Handle]wire.Handle{root: root}}
	bad := 0
	for _, e := range session(t) {
		w.diffs = nil
		raw, err := hex.DecodeString(e.Request)
		require.NoError(t, err)
		hdr, req, err := wire.DecodeRequest(raw)
		require.NoError(t, err, e.From)
		wantRaw, err := hex.DecodeString(e.Response)
		require.NoError(t, err)
		wantOp, wantStatus, want, err := wire.DecodeResponse(wantRaw)
		require.NoError(t, err, e.From)

		w.translate(reflect.ValueOf(&hdr))
		w.translate(reflect.ValueOf(req))
		c := clients[e.Server]
		if h, ok := target(req); ok {
			c = clients[owner(t, cl, h)]
		}
		_, frame := c.request(&hdr.Cap, hdr.Hints, req)
		c.send(frame)
		_, p := c.recv()
		op, status, got, err := wire.DecodeResponse(p)
		require.NoError(t, err, e.From)
		require.Equal(t, wantOp, op, e.From)
		if status != wantStatus {
			w.diffs = append(w.diffs, fmt.Sprintf("status %v, got %v", wantStatus, status))
		} else if want != nil {
			w.compare("", reflect.ValueOf(want), reflect.ValueOf(got))
		}
		if why, meant := wanted[e.From]; meant {
			require.NotEmpty(t, w.diffs, "%s: no longer true: %s", e.From, why)
			continue
		}
		if len(w.diffs) > 0 {
			bad++
			t.Errorf("%s %v: %s", e.From, req.Op(), strings.Join(w.diffs, "\n   "))
		}
		if bad > 25 {
			t.FailNow()
		}
	}
}
