package main

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/consistency"
)

func TestHelperArgs(t *testing.T) {
	for _, tt := range []struct{ name, prog, args, want, err string }{
		{"not a helper", "zoidfs", "up --dir x", "up --dir x", ""},
		{"a command with operands", "zoidfs", "mount /zfs --ion a:1", "mount /zfs --ion a:1", ""},
		{"link called by mount(8)", "mount.fuse.zoidfs", "a:1,b:2 /zfs -o rw,noatime", "mount /zfs --ion a:1,b:2 -o rw,noatime", ""},
		{"short link", "mount.zoidfs", "a:1 /zfs", "mount /zfs --ion a:1", ""},
		{"options come in pieces", "mount.fuse.zoidfs", "a:1 /zfs -nsv -r -o x-a -o x-b -t fuse.zoidfs", "mount /zfs --ion a:1 -o ro,x-a,x-b", ""},
		{"called by mount.fuse3", "zoidfs", "a:1,b:2 /zfs -o rw,dev,suid", "mount /zfs --ion a:1,b:2 -o rw,dev,suid", ""},
		{"fake", "mount.fuse.zoidfs", "a:1 /zfs -sf", "", ""},
		{"no mount point", "mount.fuse.zoidfs", "a:1", "", "want SOURCE and MOUNTPOINT, got 1 words: a:1"},
		{"value missing", "mount.fuse.zoidfs", "a:1 /zfs -o", "", "option -o needs a value"},
		{"namespace", "mount.fuse.zoidfs", "a:1 /zfs -N 1", "", "-N) is not supported"},
		{"unknown option", "mount.fuse.zoidfs", "a:1 /zfs -q", "", "unknown option -q"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := helperArgs(tt.prog, strings.Fields(tt.args))
			if tt.err != "" {
				require.ErrorContains(t, err, tt.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tt.want, strings.Join(got, " "))
		})
	}
}

func TestParseOptions(t *testing.T) {
	for _, tt := range []struct {
		lists []string
		want  mountOptions
	}{
		{nil, mountOptions{}},
		{[]string{"ro", "allow_other"}, mountOptions{readOnly: true, allowOther: true}},
		{[]string{"ro,rw"}, mountOptions{}},
		{[]string{"rw,dev,suid,_netdev,nofail,x-systemd.automount,comment=a b"}, mountOptions{}},
		{[]string{"consistency=strong,nosuid,noexec", "noatime"}, mountOptions{
			restrict: unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_NOATIME, consistency: consistency.Strong,
		}},
		{[]string{"consistency=commit,visibility=1m,cache=2G,collective=off", "consistency=session"}, mountOptions{
			consistency: consistency.Session, visibility: time.Minute, cache: 2 << 30, collective: off,
		}},
		{[]string{"io_uring=off"}, mountOptions{ioURing: off}},
		{[]string{"metrics=127.0.0.1:0,log-file=/var/log/z"}, mountOptions{metrics: "127.0.0.1:0", logFile: "/var/log/z"}},
	} {
		got, err := parseOptions(tt.lists)
		require.NoError(t, err, tt.lists)
		require.Equal(t, tt.want, got, tt.lists)
	}
	for _, bad := range []string{"frob", "consistency", "ro=1", "metrics=x", "log-file=", "sync", "nosuid=1",
		"consistency=", "consistency=default", "consistency=Strong", "visibility", "visibility=0", "visibility=-5s", "cache=", "cache=-1", "cache=9999999G"} {
		_, err := parseOptions([]string{bad})
		require.Error(t, err, bad)
	}
}
