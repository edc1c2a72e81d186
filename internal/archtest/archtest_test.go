package archtest

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/zoidfs/zoidfs"

// arrows says which rooms the packages of a room may import directly. The
// longest prefix that matches a package rules it; a package of its own room
// is always allowed unless a longer prefix says otherwise.
var arrows = map[string][]string{
	"cmd":                 {"cmd", "fs", "ionserver", "pvfs", "collective", "internal"},
	"fs":                  {"fs", "collective", "cache", "ionserver/ionclient", "ionserver/ionpb", "internal"},
	"ionserver":           {"ionserver/ionpb", "ionserver/rpc", "collective", "cache", "pvfs", "internal"},
	"ionserver/ionpb":     {"internal"},
	"ionserver/rpc":       {"ionserver/ionpb", "internal"},
	"ionserver/ionclient": {"ionserver/ionpb", "ionserver/rpc", "collective", "internal"},
	"collective":          {"internal/extent"},
	"collective/sim":      {"collective", "internal/extent"},
	"cache":               {"internal"},
	"cache/holder":        {"cache", "collective", "ionserver/ionclient", "internal"},
	"pvfs":                {"pvfs", "internal"},
	"pvfs/wire":           {"internal"},
	"pvfs/dist":           {"internal/extent"},
	"pvfs/fsconf":         {"pvfs/wire", "internal"},
	"internal":            {"internal"},
	"internal/round":      {"collective", "internal"},
}

// onlyIn says in which rooms a dependency may be imported by product code.
var onlyIn = map[string][]string{
	"github.com/hanwen/go-fuse":      {"fs", "internal/bench"},
	"google.golang.org/grpc":         {"ionserver", "internal/bench"},
	"github.com/dgraph-io/ristretto": {"cache"},
	"go.etcd.io/bbolt":               {"pvfs/pvfsd"},
	"github.com/spf13/cobra":         {"cmd"},
	"github.com/anishathalye":        {"internal/history"},
	"go.yaml.in/yaml":                {"internal/experiment"},
	"golang.org/x/image":             {"internal/experiment/report"},
	"github.com/klauspost/compress":  {"internal/trace"},
}

// free may import any room: they measure or test the whole.
var free = []string{"internal/bench", "internal/systest", "internal/archtest"}

type pkg struct {
	ImportPath, Doc, Name string
	Imports               []string
}

func listPackages(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Doc,Name,Imports", module+"/...").Output()
	require.NoError(t, err)
	var pkgs []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else {
			require.NoError(t, err)
		}
		pkgs = append(pkgs, p)
	}
	require.NotEmpty(t, pkgs)
	return pkgs
}

// within reports whether path is dir or below it.
func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, dir+"/")
}

func withinAny(path string, dirs []string) bool {
	for _, d := range dirs {
		if within(path, d) {
			return true
		}
	}
	return false
}

// rule returns the longest prefix of path that arrows knows.
func rule(path string) (string, bool) {
	for {
		if _, ok := arrows[path]; ok {
			return path, true
		}
		cut := strings.LastIndexByte(path, '/')
		if cut < 0 {
			return "", false
		}
		path = path[:cut]
	}
}

func TestArrows(t *testing.T) {
	for _, p := range listPackages(t) {
		room := strings.TrimPrefix(p.ImportPath, module+"/")
		if withinAny(room, free) || strings.HasSuffix(room, "test") {
			continue
		}
		name, ok := rule(room)
		require.True(t, ok, "%s belongs to no room", room)
		for _, imp := range p.Imports {
			if dep, ours := strings.CutPrefix(imp, module+"/"); ours {
				require.True(t, withinAny(dep, arrows[name]), "%s must not import %s", room, dep)
			}
		}
	}
}

func TestDependenciesStayInTheirRoom(t *testing.T) {
	for _, p := range listPackages(t) {
		room := strings.TrimPrefix(p.ImportPath, module+"/")
		for _, imp := range p.Imports {
			for dep, rooms := range onlyIn {
				if within(imp, dep) {
					require.True(t, withinAny(room, rooms), "%s must not import %s", room, imp)
				}
			}
		}
	}
}

func TestEveryPackageHasAComment(t *testing.T) {
	for _, p := range listPackages(t) {
		want := "Package " + p.Name
		if p.Name == "main" {
			want = "Command "
		}
		require.True(t, strings.HasPrefix(p.Doc, want), "%s: the package comment starts %q, want %q", p.ImportPath, p.Doc, want)
	}
}

// TestRule keeps the tests above able to fail.
func TestRule(t *testing.T) {
	got, ok := rule("pvfs/wire/x")
	require.True(t, ok)
	require.Equal(t, "pvfs/wire", got)
	_, ok = rule("elsewhere")
	require.False(t, ok)
	require.False(t, withinAny("pvfsx", []string{"pvfs"}))
	require.False(t, withinAny("ionserver", arrows["fs"]), "fs must never import the server")
}
