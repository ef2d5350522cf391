//go:build lsm_apparmor

package host

import (
	"cmp"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/apparmor"
	"github.com/confine-dev/confine/pkg/reason"
)

// everythingFor is what a policy has to say to admit as much as one can, for
// profiles of these names.
func everythingFor(t *testing.T, names []string) []profile.Limits {
	t.Helper()
	tops := []string{}
	for _, name := range names {
		if top, _, _ := strings.Cut(name, "//"); len(top) > 2 && !strings.ContainsAny(top, "/{}*@ ") {
			tops = append(tops, top)
		}
	}
	limits, err := json.Marshal(map[string]any{
		"allowedNames": tops, "allowedRules": apparmor.RuleClasses(),
		"allowedFlags":        []string{"complain", "audit", "unconfined", "kill"},
		"allowedCapabilities": strings.Fields("audit_control audit_read block_suspend dac_read_search ipc_lock ipc_owner lease linux_immutable mac_admin mac_override net_admin net_broadcast sys_admin sys_boot sys_chroot sys_module sys_nice sys_pacct sys_ptrace sys_rawio sys_resource sys_time sys_tty_config syslog wake_alarm"),
	})
	must(t, err)
	return []profile.Limits{limits}
}

// hostTexts are the profiles of Debian's packages on this machine.
func hostTexts(t *testing.T) map[string][]byte {
	t.Helper()
	texts := map[string][]byte{}
	for _, pattern := range []string{"/etc/apparmor.d/*", "/usr/share/apparmor/extra-profiles/*"} {
		files, err := filepath.Glob(pattern)
		must(t, err)
		for _, name := range files {
			if info, err := os.Stat(name); err != nil || !info.Mode().IsRegular() || filepath.Base(name) == "README" {
				continue
			}
			data, err := os.ReadFile(name)
			must(t, err)
			texts[name] = data
		}
	}
	return texts
}

// TestRealWorldProfiles installs what of Debian's profiles a policy can admit,
// as far as an emulated processor compiles it in time: the shortest. The counts
// are those of Debian 12: fewer have to be looked at.
func TestRealWorldProfiles(t *testing.T) {
	const read, admitted, tried, installed = 142, 74, 8, 8
	k, texts := apparmor.NewKind(), hostTexts(t)
	units, forbidden := []profile.Unit{}, 0
	for name, data := range texts {
		p, err := k.Parse(name, data)
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		unit := ofText("u"+strings.ToLower(strings.Map(letters, filepath.Base(name))), string(data))
		if err := k.Constrain(p, profile.For(unit.Owner), nil); !errors.Is(err, reason.ProfileForbidden) {
			t.Errorf("%s: the safe default says %v", name, err)
		}
		if err := k.Constrain(p, profile.For(unit.Owner), everythingFor(t, apparmor.Names(p))); err != nil {
			forbidden++
			continue
		}
		units = append(units, unit)
	}
	slices.SortFunc(units, func(a, b profile.Unit) int {
		return cmp.Or(cmp.Compare(len(a.Files[0].Data), len(b.Files[0].Data)), a.Owner.Compare(b.Owner))
	})
	loaded, all := 0, len(units)
	units = units[:min(tried, all)]
	h := realHost(t, Options{})
	for i, o := range h.Install(t.Context(), units) {
		switch {
		case o.Err == nil:
			loaded++
		case !errors.Is(o.Err, reason.ProfileInvalid) && !errors.Is(o.Err, reason.NameConflict):
			t.Errorf("%s: %v", units[i].Owner, o.Err)
		default:
			t.Logf("not installed: %v", o.Err)
		}
	}
	t.Logf("%d profiles read, all refused by default; the widest policy refuses %d and admits %d; of %d tried %d are loaded", len(texts), forbidden, all, len(units), loaded)
	if len(texts) < read || all < admitted || loaded < installed {
		t.Errorf("%d read, %d admitted, %d loaded; they were %d, %d and %d", len(texts), all, loaded, read, admitted, installed)
	}
}

func letters(r rune) rune {
	if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
		return r
	}
	return -1
}
