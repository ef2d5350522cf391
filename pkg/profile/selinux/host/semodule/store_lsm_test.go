//go:build lsm_selinux

package semodule_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/confine-dev/confine/pkg/profile/selinux/host/semodule"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// module is a profile with a process type of its own.
func module(i int) semodule.Module {
	return semodule.Module{Name: fmt.Sprintf("confine_m%d", i),
		CIL: fmt.Appendf(nil, "(block confine_shop_m%d (blockinherit container) (allow process self (tcp_socket (create))))\n", i)}
}

func modules(n int) (all []semodule.Module, names []string) {
	for i := range n {
		all = append(all, module(i))
		names = append(names, module(i).Name)
	}
	return all, names
}

// emptied returns the machine's store, without what tests before left.
func emptied(t *testing.T, o semodule.Options) *semodule.Store {
	t.Helper()
	s := semodule.New(o)
	empty := func() {
		listed, err := s.List(context.Background())
		must(t, err)
		must(t, s.Commit(context.Background(), semodule.Change{Remove: names(listed)}))
	}
	empty()
	t.Cleanup(empty)
	return s
}

func names(listed []semodule.Listed) []string {
	var all []string
	for _, l := range listed {
		all = append(all, l.Name)
	}
	return all
}

func wantListed(t *testing.T, s *semodule.Store, want ...semodule.Module) {
	t.Helper()
	listed, err := s.List(t.Context())
	must(t, err)
	got, wanted := map[string]string{}, map[string]string{}
	for _, l := range listed {
		got[l.Name] = l.Checksum
	}
	for _, m := range want {
		wanted[m.Name] = fmt.Sprintf("sha256:%x", sha256.Sum256(m.CIL))
	}
	if diff := cmp.Diff(wanted, got); diff != "" {
		t.Errorf("modules (-want +got):\n%s", diff)
	}
}

// known reports whether the kernel's loaded policy has the type of module i.
func known(i int) bool {
	label := fmt.Sprintf("system_u:system_r:confine_shop_m%d.process:s0", i)
	return os.WriteFile("/sys/fs/selinux/context", []byte(label), 0) == nil
}

// policyLoads is how often the kernel got a policy: the fourth number of struct
// selinux_kernel_status in Linux' security/selinux/include/security.h.
func policyLoads(t *testing.T) uint32 {
	t.Helper()
	status, err := os.ReadFile("/sys/fs/selinux/status")
	must(t, err)
	return binary.NativeEndian.Uint32(status[12:])
}

func TestOneTransactionForMany(t *testing.T) {
	s := emptied(t, semodule.Options{})
	all, allNames := modules(50)
	policyLoads(t) // counts from the first look on, and jumps with the first load after it
	must(t, s.Reload(t.Context()))
	loads := policyLoads(t)
	must(t, s.Commit(t.Context(), semodule.Change{Install: all}))
	if n := policyLoads(t) - loads; n != 1 {
		t.Errorf("the kernel got %d policies", n)
	}
	wantListed(t, s, all...)
	if !known(0) || !known(49) || known(50) {
		t.Error("the kernel does not have the types")
	}
	must(t, s.Commit(t.Context(), semodule.Change{Remove: append(allNames[1:], "confine_never")}))
	wantListed(t, s, all[0])
	if !known(0) || known(1) {
		t.Error("the kernel does not have just the one that is left")
	}
}

func TestInTheRootOfAnother(t *testing.T) {
	s := emptied(t, semodule.Options{HostRoot: "/proc/1/root"})
	must(t, s.Commit(t.Context(), semodule.Change{Install: []semodule.Module{module(1)}}))
	wantListed(t, s, module(1))
	if !known(1) {
		t.Error("the kernel does not have the type")
	}
}

// TestKilledInTheMiddle ends semodule at several points of its work: the store
// has the module or has not, and the next change goes through.
func TestKilledInTheMiddle(t *testing.T) {
	const points = 3
	s := emptied(t, semodule.Options{})
	start := time.Now()
	must(t, s.Commit(t.Context(), semodule.Change{Install: []semodule.Module{module(0)}}))
	whole := time.Since(start)
	killed := 0
	for i := range points {
		ctx, cancel := context.WithTimeout(t.Context(), whole*time.Duration(i+1)/(points+1))
		err := s.Commit(ctx, semodule.Change{Install: []semodule.Module{module(1)}, Remove: []string{module(0).Name}})
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			killed++
		} else {
			must(t, err)
		}
		listed, err := s.List(t.Context())
		must(t, err)
		if got := names(listed); !slices.Equal(got, []string{module(0).Name}) && !slices.Equal(got, []string{module(1).Name}) {
			t.Errorf("point %d: the store has %q", i, got)
		} else {
			must(t, s.Reload(t.Context()))
			if isNew := got[0] == module(1).Name; known(1) != isNew || known(0) == isNew {
				t.Errorf("point %d: the store has %q, and the kernel not just that after a reload", i, got)
			}
		}
		must(t, s.Commit(t.Context(), semodule.Change{Install: []semodule.Module{module(0)}, Remove: []string{module(1).Name}}))
		wantListed(t, s, module(0))
	}
	if killed == 0 {
		t.Error("no point was before its end")
	}
}

func TestLockedByAnother(t *testing.T) {
	s := emptied(t, semodule.Options{})
	lock, err := os.OpenFile("/var/lib/selinux/tiny/semanage.trans.LOCK", os.O_RDWR, 0)
	must(t, err)
	defer lock.Close()
	must(t, syscall.Flock(int(lock.Fd()), syscall.LOCK_EX))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := s.Commit(ctx, semodule.Change{Install: []semodule.Module{module(1)}}); err == nil {
		t.Error("committed under another's lock")
	}
	wantListed(t, s)
	must(t, syscall.Flock(int(lock.Fd()), syscall.LOCK_UN))
	must(t, s.Commit(t.Context(), semodule.Change{Install: []semodule.Module{module(1)}}))
	wantListed(t, s, module(1))
}

func TestNamesThatAreNone(t *testing.T) {
	s := emptied(t, semodule.Options{})
	for _, name := range []string{"", "-B", "../x", "a b", "a.b", "1a", "a/b", "a\x00b"} {
		err := s.Commit(t.Context(), semodule.Change{Install: []semodule.Module{{Name: name, CIL: module(1).CIL}}})
		if !errors.Is(err, semodule.ErrName) {
			t.Errorf("%q: %v", name, err)
		}
	}
	wantListed(t, s)
}

// TestLowPriority: semodule prints a priority with zeros in front.
func TestLowPriority(t *testing.T) {
	s := emptied(t, semodule.Options{Priority: 50})
	m := module(1)
	must(t, s.Commit(t.Context(), semodule.Change{Install: []semodule.Module{m}}))
	wantListed(t, s, m)
}
