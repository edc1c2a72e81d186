package fsconf

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// ignored lists keys that OrangeFS knows and that change nothing for us.
var ignored = []string{
	"enabletracing", "logtype", "tracelevel", "perfupdatehistory", "bmiopts", "immediatecompletion",
	"handlerecycletimeoutsecs", "attrcachekeywords", "attrcachesize", "attrcachemaxnumelems", "dbcachesizebytes",
	"dbcachetype", "dbmaxsize", "coalescinghighwatermark", "coalescinglowwatermark", "trovemaxconcurrentio",
	"directiothreadnum", "directioopsperqueue", "directiotimeout", "securitydept", "serverkey", "keystore",
	"cafile", "userfile", "keyfile", "certsfile", "credentialtimeoutsecs", "capabilitytimeoutsecs",
	"credcachetimeoutsecs", "capcachetimeoutsecs", "bypasstimeoutcheck", "option", "metareplicationfactor",
	"preferredencoding", "encoding", "secretkey",
}

// key applies one line; known is false for a key that means nothing here.
func (p *parser) key(section, key string, args []string) (known bool, err error) {
	switch section {
	case "defaults":
		return p.conf.Defaults.key(key, args)
	case "security":
		return p.security(key, args)
	case "aliases":
		return p.alias(key, args)
	case "serveroptions":
		return p.rec.srv.key(key, args)
	case "filesystem":
		return p.rec.fs.key(key, args)
	case "metahandleranges":
		return p.rec.fs.handleRange(&p.rec.fs.Meta, key, args)
	case "datahandleranges":
		return p.rec.fs.handleRange(&p.rec.fs.Data, key, args)
	case "storagehints":
		return p.rec.fs.Hints.key(key, args)
	case "distribution":
		return p.rec.fs.Dist.key(key, args)
	case "exportoptions":
		return p.rec.fs.Export.key(key, args)
	}
	return false, nil
}

func (p *parser) alias(key string, args []string) (bool, error) {
	if key != "alias" {
		return false, nil
	}
	if len(args) < 2 {
		return true, errors.New("wants a name and an address")
	}
	a := Alias{Name: args[0]}
	if len(a.Name) > maxAlias {
		return true, fmt.Errorf("name of %d bytes, more than %d", len(a.Name), maxAlias)
	}
	if p.hasAlias(a.Name) {
		return true, fmt.Errorf("%q is an alias already", a.Name)
	}
	if len(p.conf.Aliases) >= maxServers {
		return true, fmt.Errorf("more than %d aliases", maxServers)
	}
	for _, s := range list(args[1:]) {
		if strings.HasPrefix(s, "tcp://") {
			if _, err := HostPort(s); err != nil {
				return true, err
			}
		} else if !strings.Contains(s, "://") {
			return true, fmt.Errorf("address %q is not tcp://host:port", s)
		}
		a.Addrs = append(a.Addrs, s)
	}
	if len(a.Addrs) == 0 {
		return true, errors.New("wants a name and an address")
	}
	slices.SortStableFunc(a.Addrs, func(x, y string) int {
		return btoi(!strings.HasPrefix(x, "tcp://")) - btoi(!strings.HasPrefix(y, "tcp://"))
	})
	p.conf.Aliases = append(p.conf.Aliases, a)
	return true, nil
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (p *parser) security(key string, args []string) (bool, error) {
	if key != "turnofftimeouts" {
		return false, nil
	}
	var err error
	p.conf.Defaults.TurnOffTimeouts, err = yesNo(args)
	return true, err
}

func (d *Defaults) key(key string, args []string) (bool, error) {
	ints := map[string]*int{
		"unexpectedrequests": &d.UnexpectedRequests, "perfupdateinterval": &d.PerfUpdateInterval,
		"serverjobbmitimeoutsecs": &d.ServerJobBMITimeout, "serverjobflowtimeoutsecs": &d.ServerJobFlowTimeout,
		"clientjobbmitimeoutsecs": &d.ClientJobBMITimeout, "clientjobflowtimeoutsecs": &d.ClientJobFlowTimeout,
		"clientretrylimit": &d.ClientRetryLimit, "clientretrydelaymillisecs": &d.ClientRetryDelayMillis,
		"tcpbuffersend": &d.TCPBufferSend, "tcpbufferreceive": &d.TCPBufferReceive,
	}
	if at, ok := ints[key]; ok {
		return true, setInt(at, args, 0, math.MaxInt32)
	}
	words := map[string]*string{
		"datastoragespace": &d.DataStorageSpace, "metadatastoragespace": &d.MetadataStorageSpace,
		"logfile": &d.LogFile, "logstamp": &d.LogStamp,
	}
	if at, ok := words[key]; ok {
		return true, setWord(at, args)
	}
	var err error
	switch key {
	case "eventlogging":
		d.EventLogging = strings.Join(list(args), ",")
	case "bmimodules":
		d.BMIModules = list(args)
		if !slices.Contains(d.BMIModules, "bmi_tcp") {
			err = errors.New("bmi_tcp is not among the modules")
		}
	case "flowmodules":
		d.FlowModules = list(args)
	case "precreatebatchsize":
		d.PrecreateBatchSize, err = numbers(args)
	case "precreatelowthreshold":
		d.PrecreateLowThreshold, err = numbers(args)
	case "tcpbindspecific":
		d.TCPBindSpecific, err = yesNo(args)
	default:
		return false, nil
	}
	return true, err
}

func (s *Server) key(key string, args []string) (bool, error) {
	words := map[string]*string{
		"server": &s.Alias, "datastoragespace": &s.DataStorageSpace,
		"metadatastoragespace": &s.MetadataStorageSpace, "logfile": &s.LogFile,
	}
	at, ok := words[key]
	if !ok {
		return false, nil
	}
	if key == "server" && s.Alias != "" {
		return true, errors.New("a section names one server only")
	}
	return true, setWord(at, args)
}

func (f *FileSystem) key(key string, args []string) (bool, error) {
	type bounded struct {
		at     *int
		lo, hi int64
	}
	ints := map[string]bounded{
		"flowbuffersizebytes": {&f.FlowBufferSize, minFlowBuffer, maxFlowBuffer}, "flowbuffersperflow": {&f.FlowBuffers, 1, 1024},
		"defaultnumdfiles": {&f.DefaultNumDFiles, 0, 1023}, "smallfilesize": {&f.SmallFileSize, 0, math.MaxInt32},
		"treewidth": {&f.TreeWidth, 1, maxServers}, "treethreshold": {&f.TreeThreshold, 1, maxServers},
		"distrdirserversinitial": {&f.DistrDirServersInitial, 1, maxServers},
		"distrdirserversmax":     {&f.DistrDirServersMax, 1, maxServers},
		"distrdirsplitsize":      {&f.DistrDirSplitSize, 1, math.MaxInt32},
	}
	if b, ok := ints[key]; ok {
		return true, setInt(b.at, args, b.lo, b.hi)
	}
	var err error
	switch key {
	case "name":
		err = setWord(&f.Name, args)
		if err == nil && strings.ContainsAny(f.Name, "/ \t") {
			err = fmt.Errorf("%q has a slash or blank in it", f.Name)
		}
	case "id":
		var n int64
		n, err = number(args, math.MinInt32, math.MaxUint32)
		f.ID = int32(n)
	case "roothandle":
		var s string
		if s, err = oneWord(args); err == nil {
			if f.RootHandle, err = strconv.ParseUint(s, 10, 64); err != nil {
				err = fmt.Errorf("%q is not a handle", s)
			}
		}
	case "filestuffing":
		f.FileStuffing, err = yesNo(args)
	default:
		return false, nil
	}
	return true, err
}

func (f *FileSystem) handleRange(to *[]HandleRange, key string, args []string) (bool, error) {
	if key != "range" {
		return false, nil
	}
	if len(args) < 2 {
		return true, errors.New("wants an alias and handle ranges")
	}
	rs, err := ranges(args[1:])
	if err != nil {
		return true, err
	}
	if hasAlias(*to, args[0]) {
		return true, fmt.Errorf("a second Range of %q", args[0])
	}
	*to = append(*to, HandleRange{args[0], rs})
	return true, nil
}

func (h *StorageHints) key(key string, args []string) (bool, error) {
	var err error
	switch key {
	case "trovesyncmeta":
		h.SyncMeta, err = yesNo(args)
	case "trovesyncdata":
		h.SyncData, err = yesNo(args)
	case "trovemethod":
		err = setWord(&h.Method, args)
	default:
		return false, nil
	}
	return true, err
}

func (d *Distribution) key(key string, args []string) (bool, error) {
	word, err := oneWord(args)
	switch key {
	case "name":
		d.Name = word
	case "param":
		if err == nil && len(d.Params) >= 16 {
			return true, errors.New("more than 16 parameters")
		}
		d.Params = append(d.Params, Param{Name: word})
	case "value":
		if len(d.Params) == 0 {
			return true, errors.New("stands before any Param")
		}
		d.Params[len(d.Params)-1].Value = word
	default:
		return false, nil
	}
	return true, err
}

func (e *ExportOptions) key(key string, args []string) (bool, error) {
	lists := map[string]*[]string{
		"rootsquash": &e.RootSquash, "rootsquashexceptions": &e.RootSquashExceptions,
		"allsquash": &e.AllSquash, "allsquashexceptions": &e.AllSquashExceptions, "readonly": &e.ReadOnly,
		"trustednetwork": &e.TrustedNetwork, "trustedport": &e.TrustedPort,
	}
	if at, ok := lists[key]; ok {
		*at = append(*at, list(args)...)
		return true, nil
	}
	ids := map[string]*uint32{"anonuid": &e.AnonUID, "anongid": &e.AnonGID}
	at, ok := ids[key]
	if !ok {
		return false, nil
	}
	n, err := number(args, 0, math.MaxUint32)
	*at = uint32(n)
	return true, err
}

func setInt(at *int, args []string, lo, hi int64) error {
	n, err := number(args, lo, hi)
	if err == nil {
		*at = int(n)
	}
	return err
}

func setWord(at *string, args []string) error {
	s, err := oneWord(args)
	if err == nil {
		*at = s
	}
	return err
}
