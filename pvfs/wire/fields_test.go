package wire

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// message is what a captured payload decodes to, as far as fields name it.
type message struct {
	RequestHeader
	Body any
}

// goPath maps a field's name in the corpus, indexes taken out, to where it is
// in a message; a leading "OP " is for that op only. "[]" takes the name's next
// index, "#" is the length of a list, "+1" a text's length with NUL or 0.
var goPath = func() map[string]string {
	m := map[string]string{}
	add := func(prefix, to, lines string) {
		for _, l := range strings.Split(strings.TrimSpace(lines), "\n") {
			f := strings.Fields(l)
			key := prefix + f[0]
			if len(f) == 3 {
				key = f[2] + " " + key
			}
			m[key] = to + f[1]
		}
	}
	add("hints", "Hints", "[].type [].Type \n [].value [].Value \n .count #")
	capability := `issuer Issuer
		fsid FSID
		sig_size Signature#
		timeout Timeout
		op_mask Ops
		num_handles Handles#
		handle[] Handles[]`
	dist := `name Name
		strip_size StripSize
		num_groups NumGroups
		group_strip_factor GroupStripFactor
		strips Strips`
	add("capability.", "Cap.", capability)
	add("capability.", "Body.Cap.", strings.ReplaceAll(capability, "\n", " MKDIR-response\n")+" MKDIR-response")
	add("credential.", "Body.Cred.", `userid UID
		num_groups Groups#
		group[] Groups[]
		issuer Issuer
		timeout Timeout
		sig_size Signature#
		certificate.buf_size Certificate#`)
	add("io_dist.", "Body.Dist.", dist)
	add("dist.", "Body.Dist.", dist)
	add("file_req.", "Body.Type.Records", `[].offset [].Offset
		[].num_ereqs [].Elems
		[].num_blocks [].Blocks
		[].stride [].Stride
		[].ub [].UB
		[].lb [].LB
		[].aggregate_size [].Size
		[].num_contig_chunks [].Chunks
		[].depth [].Depth
		[].num_nested_req [].Nested
		[].committed [].Committed
		[].refcount [].RefCount
		[].ereq_index [].Elem
		[].sreq_index [].Next`)
	for _, a := range [][2]string{{"attr.", "Body.Attr."}, {"attr[].", "Body.Attrs[]."}, {"metafile_attrs.", "Body.Attr."}} {
		add(a[0]+"dist.", a[1]+"Dist.", dist)
		add(a[0]+"capability.", a[1]+"Cap.", capability)
		add(a[0], a[1], `owner UID
			group GID
			perms Perms
			atime Atime
			mtime Mtime
			ctime Ctime
			mask Mask
			objtype Type
			stuffed_size StuffedSize
			dfile_count DFiles#
			dfile[] DFiles[]
			metafile_hint.flags Flags
			mirror_copies_count MirrorCopies
			datafile.size Size
			symlink.target_path_len Target+1
			symlink.target_path Target
			dist_dir_attr.tree_height DistDir.TreeHeight
			dist_dir_attr.num_servers DistDir.Dirdata#
			dist_dir_attr.bitmap_size DistDir.Bitmap#
			dist_dir_attr.split_size DistDir.SplitSize
			dist_dir_attr.server_no DistDir.ServerNo
			dist_dir_attr.branch_level DistDir.BranchLevel
			dist_dir_bitmap[] DistDir.Bitmap[]
			dirdata_handle[] DistDir.Dirdata[]
			dir.dirent_count DirentCount
			dir.hint.dist_name_len DirHint.DistName+1
			dir.hint.dist_name DirHint.DistName
			dir.hint.dist_params_len DirHint.DistParams+1
			dir.hint.dist_params DirHint.DistParams
			dir.hint.dfile_count DirHint.DFiles
			dir.hint.layout.algorithm DirHint.Layout
			dir.hint.layout.server_list.count DirHint.NumServers
			dir.hint.layout.server_list.bufsize DirHint.ListSize
			dir.hint.layout.server_list.servers DirHint.Servers`)
	}
	add("", "Body.", `fs_id FSID
		object_type Type
		object_count Count
		handle_extent_array.count Ranges#
		extent[].first Ranges[].First
		extent[].last Ranges[].Last
		entry Name
		name Name
		new_dirent_handle Handle
		new_handle Handle
		parent_handle Parent
		dirent_handle Dirdata
		dirdata_handle Dirdata
		num_dfiles_req NumDFiles
		layout.algorithm Layout.Type
		layout.count Layout.Servers#
		layout.server[] Layout.Servers[]
		handle Handle
		handle Dirdata MGMT_GET_DIRENT-request
		key Key
		flags Flags
		attrmask Mask
		nkey Keys#
		nkey Rooms# LISTEATTR-request
		nkey Values# GETEATTR-response
		key[] Keys[]
		val[] Values[]
		valsz[] Rooms[]
		keysz[] Rooms[]
		io_type Dir
		server_nr ServerNr
		server_ct ServerCt
		file_req_offset Offset
		aggregate_size Aggregate
		total_bytes Total
		data Data
		nhandles Handles#
		nhandles Attrs# LISTATTR-response
		handle_count Handles#
		handle_count Attrs# TREE_GETATTR-response
		handle_count Sizes# TREE_GET_FILE_SIZE-response
		handle_count Statuses# TREE_REMOVE-response
		handle_count Statuses# TREE_SETATTR-response
		num_data_files Handles#
		handle[] Handles[]
		attr_count Attrs#
		token Token
		path Path
		starting_handle Start
		cnt_type CounterType
		next_id NextID
		suggested_next_id NextID
		key_count KeyCount
		count Count
		param Param
		value.type IsText
		value Value
		dest_dirent_handle Dirdata
		undo Undo
		nentries Handles#
		entry_handle[] Handles[]
		entry_name[] Names[]
		distr_dir_servers_initial ServersInitial
		distr_dir_servers_max ServersMax
		distr_dir_split_size SplitSize
		dirent_count Count
		dirent_count Dirents# READDIR-response
		dirent[].name Dirents[].Name
		dirent[].handle Dirents[].Handle
		directory_version Version
		caller_handle_index Index
		retry_msgpair_at_leaf Retry
		objtype Type
		size Size
		status[] Statuses[]
		error[] Statuses[]
		err[] Statuses[]
		error Status
		size[] Sizes[]
		old_dirent_handle Handle
		entry_handle Handle
		metafile_handle Handle
		stuffed Stuffed
		fs_config_buf_size Config+1
		fs_config_buf Config
		bstream_size BstreamSize
		result_size Result
		bytes_available Available
		bytes_total Total
		ram_total_bytes RAMTotal
		ram_free_bytes RAMFree
		load_1 Load.0
		load_5 Load.1
		load_15 Load.2
		uptime_seconds Uptime
		handles_available_count HandlesAvailable
		handles_total_count HandlesTotal
		end_time_ms EndMs
		cur_time_ms NowMs
		sample_count Samples
		perf_array_count Values#
		perf[] Values[]
		total_completed Total`)
	return m
}()

// notKept are fields that a decoder checks and forgets.
var notKept = map[string]bool{
	"proto_version": true, "encoding": true, "op": true, "status": true, "flow_type": true,
	"file_req.num_nested_req": true,
}

var index = regexp.MustCompile(`\[(\d+)\]`)

// resolve follows path from v.
func resolve(t *testing.T, v reflect.Value, path string, indexes []int) any {
	for path != "" {
		for v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface {
			v = v.Elem()
		}
		switch {
		case path == "#":
			return v.Len()
		case path == "+1":
			if v.Len() == 0 {
				return 0
			}
			return v.Len() + 1
		case strings.HasPrefix(path, "[]"):
			require.Less(t, indexes[0], v.Len())
			v, path, indexes = v.Index(indexes[0]), path[2:], indexes[1:]
		case path[0] == '.':
			path = path[1:]
		case path[0] >= '0' && path[0] <= '9':
			v, path = v.Index(int(path[0]-'0')), path[1:]
		default:
			n := strings.IndexAny(path, ".[#+")
			if n < 0 {
				n = len(path)
			}
			v, path = v.FieldByName(path[:n]), path[n:]
			require.True(t, v.IsValid())
		}
	}
	return v.Interface()
}

// plain makes got and the corpus's want comparable text.
func plain(name string, got, want any) (string, string) {
	switch w := want.(type) {
	case map[string]any:
		b, _ := got.([]byte)
		if s, ok := w["hex"].(string); ok {
			return hex.EncodeToString(b), s
		}
		sum := sha256.Sum256(b)
		return hex.EncodeToString(sum[:]), w["sha256"].(string)
	case json.Number:
		want = w.String()
	}
	w := want.(string)
	v := reflect.ValueOf(got)
	switch {
	case v.Kind() == reflect.String:
		return v.String(), w
	case v.Kind() == reflect.Bool:
		return strconv.FormatBool(v.Bool()), strconv.FormatBool(w[0] == '1')
	}
	w, _, _ = strings.Cut(w, " ")
	base := 10
	if strings.HasSuffix(name, ".perms") {
		base = 8
	} else if strings.HasPrefix(w, "0x") {
		w, base = w[2:], 16
	}
	if v.CanUint() {
		n, _ := strconv.ParseUint(w, base, 64)
		return strconv.FormatUint(v.Uint(), 10), strconv.FormatUint(n, 10)
	}
	n, _ := strconv.ParseInt(w, base, 64)
	return strconv.FormatInt(v.Int(), 10), strconv.FormatInt(n, 10)
}

// TestCapturedFields compares decoded fields, by name, with what the
// independent decoder saw in them.
func TestCapturedFields(t *testing.T) {
	checked, ops := 0, map[string]bool{}
	for _, m := range corpus(t) {
		if m.Fields == nil || m.Hex[:8] != "581b0000" {
			continue
		}
		var got message
		var err error
		if m.Kind == "request" {
			got.RequestHeader, got.Body, err = DecodeRequest(m.b)
		} else {
			_, _, got.Body, err = DecodeResponse(m.b)
		}
		require.NoError(t, err, m.From)
		for _, f := range m.Fields {
			name := f[0].(string)
			if notKept[name] {
				continue
			}
			var indexes []int
			for _, s := range index.FindAllStringSubmatch(name, -1) {
				n, _ := strconv.Atoi(s[1])
				indexes = append(indexes, n)
			}
			norm := index.ReplaceAllString(name, "[]")
			path, ok := goPath[m.Op+"-"+m.Kind+" "+norm]
			if !ok {
				path, ok = goPath[norm]
			}
			require.True(t, ok, "%s: field %s", m.From, name)
			have, want := plain(name, resolve(t, reflect.ValueOf(got), path, indexes), f[2])
			require.Equal(t, want, have, "%s: %s %s: field %s", m.From, m.Op, m.Kind, name)
			checked++
		}
		ops[m.Op+" "+m.Kind] = true
	}
	require.Len(t, ops, 66)
	require.Greater(t, checked, 9000)
	t.Logf("%d fields of %d kinds of message", checked, len(ops))
}
