package host

import (
	"context"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/confine-dev/confine/pkg/durable"
	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/profiletest"
	"github.com/confine-dev/confine/pkg/profile/selinux"
	"github.com/confine-dev/confine/pkg/profile/selinux/host/semodule"
	"github.com/confine-dev/confine/pkg/reason"
)

// bench is one machine, with a Host on it.
type bench struct {
	t *testing.T
	p policy
	h *Host
}

func newBench(t *testing.T, p policy) *bench {
	t.Helper()
	h, err := open(Options{Root: filepath.Join(t.TempDir(), "selinux")}, p)
	must(t, err)
	return &bench{t, p, h}
}

// again is the Host of another process.
func (b *bench) again() {
	b.t.Helper()
	h, err := open(b.h.opts, b.p)
	must(b.t, err)
	h.opts.Before = nil
	b.h = h
}

func (b *bench) install(changed bool, units ...profile.Unit) {
	b.t.Helper()
	b.want(changed, b.h.Install(b.t.Context(), units))
}

func (b *bench) remove(changed bool, owners ...profile.Owner) {
	b.t.Helper()
	b.want(changed, b.h.Remove(b.t.Context(), owners))
}

func (b *bench) want(changed bool, got []profile.Outcome) {
	b.t.Helper()
	for i, o := range got {
		if o.Err != nil || o.Changed != changed {
			b.t.Errorf("outcome %d: %+v, want changed %v", i, o, changed)
		}
	}
}

func (b *bench) refused(got profile.Outcome, want reason.Reason, says string) {
	b.t.Helper()
	if !errors.Is(got.Err, want) || got.Changed || !strings.Contains(got.Err.Error(), says) {
		b.t.Errorf("got %+v, want %s with %q", got, want, says)
	}
}

// inForce expects exactly these units, each with all of its types, in the store
// and in the kernel.
func (b *bench) inForce(units ...profile.Unit) {
	b.t.Helper()
	want, got := map[string][]string{}, map[string][]string{}
	for _, u := range units {
		for _, f := range u.Files {
			parsed, err := selinux.Parse(f.Name, f.Data)
			must(b.t, err)
			_, processType := parsed.Names()
			want[u.Owner.String()+" "+u.Digest.String()] = append(want[u.Owner.String()+" "+u.Digest.String()], f.Name+" "+processType)
		}
	}
	in, err := b.h.Installed(b.t.Context())
	must(b.t, err)
	for _, i := range in {
		for _, f := range i.Files {
			got[i.Owner.String()+" "+i.Digest.String()] = append(got[i.Owner.String()+" "+i.Digest.String()], f.Name+" "+strings.Join(f.References, " "))
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		b.t.Errorf("in force (-want +got):\n%s", diff)
	}
	foreign, err := b.h.Foreign(b.t.Context())
	must(b.t, err)
	if len(foreign) > 0 {
		b.t.Errorf("foreign modules: %q", foreign)
	}
	if durableMark(b.h) {
		b.t.Error("the mark of a transaction is left")
	}
}

func durableMark(h *Host) bool {
	d, err := durable.OpenExisting(h.opts.Root, durable.Options{})
	if err != nil {
		return false
	}
	defer func() { _ = d.Close() }()
	_, err = d.Lstat(mark)
	return err == nil
}

// runCases are what a Host does to a policy, in memory or real.
func runCases(t *testing.T, fresh func(t *testing.T) policy) {
	t.Helper()
	for name, run := range map[string]func(b *bench){
		"from the first install to the last removal": caseLifecycle,
		"a text of two owners":                       caseShared,
		"blocks that belong to others":               caseConflicts,
		"broken modules stop no good ones":           caseBroken,
		"drift":                                      caseDrift,
		"killed between store and kernel":            caseKilled,
		"modules of others":                          caseForeign,
	} {
		t.Run(name, func(t *testing.T) { run(newBench(t, fresh(t))) })
	}
}

func caseLifecycle(b *bench) {
	web, db := owner("shop", "web.v1"), owner("store", "db")
	b.inForce()
	b.remove(false, web)
	b.install(true, unit(web, profiletest.First), unit(db, profiletest.First))
	b.inForce(unit(web, profiletest.First), unit(db, profiletest.First))
	b.again()
	b.install(false, unit(web, profiletest.First), unit(db, profiletest.First))
	b.install(true, unit(web, profiletest.Second))
	b.inForce(unit(web, profiletest.Second), unit(db, profiletest.First))
	b.install(true, unit(db, profiletest.Fewer))
	b.inForce(unit(web, profiletest.Second), unit(db, profiletest.Fewer))
	wantKnown(b.t, b.p, block(db, "worker"), false)
	b.remove(true, web)
	b.remove(false, web)
	b.inForce(unit(db, profiletest.Fewer))
	b.remove(true, db)
	b.inForce()
	wantModules(b.t, b.p)
}

func caseShared(b *bench) {
	web := unit(owner("shop", "web"), profiletest.First)
	api, other := web, web
	api.Owner = owner("store", "api")
	other.Owner, other.Digest = owner("a", "first"), digestOf("the same files, described otherwise")
	b.install(true, web, api)
	b.inForce(web, api)
	b.install(true, other) // it sorts first, and carries the text from now on
	b.inForce(other, web, api)
	b.install(false, other, web, api)
	b.remove(true, other.Owner)
	b.again()
	b.inForce(web, api)
	b.install(false, web, api)
	b.remove(true, web.Owner)
	b.inForce(api)
	b.remove(true, api.Owner)
	b.inForce()
}

func caseConflicts(b *bench) {
	web, thief := unit(owner("shop", "web"), profiletest.First), unit(owner("shop", "web"), profiletest.Second)
	thief.Owner = owner("shop", "thief")
	b.install(true, web)
	b.refused(b.h.Install(b.t.Context(), []profile.Unit{thief})[0], reason.NameConflict, "shop/web")
	together := b.h.Install(b.t.Context(), []profile.Unit{web, thief})
	b.want(false, together[:1])
	b.refused(together[1], reason.NameConflict, "shop/web")

	db := unit(owner("store", "db"), profiletest.First)
	must(b.t, b.p.hostModule(b.t.Context(), block(db.Owner, "worker")))
	got := b.h.Install(b.t.Context(), []profile.Unit{db, unit(owner("store", "good"), profiletest.First)})
	b.refused(got[0], reason.NameConflict, selinux.ProcessType(block(db.Owner, "worker")))
	b.want(true, got[1:])
	b.inForce(web, unit(owner("store", "good"), profiletest.First))

	same := web
	same.Owner = owner("shop", "same")
	same.Files = thief.Files
	b.refused(b.h.Install(b.t.Context(), []profile.Unit{same})[0], reason.InstallFailed, "with other files")

	// A block moves from one owner to another in one transaction.
	b.install(true, unit(web.Owner, profiletest.Fewer), profile.Unit{Owner: owner("shop", "worker"), Digest: digestOf("moved"),
		Files: []profile.File{{Name: "w.cil", Data: blockWith(block(web.Owner, "worker"), "(blockinherit net_container)")}}})
}

// broken are units that read well and that no policy here takes.
func broken(o profile.Owner) profile.Unit {
	return profile.Unit{Owner: o, Digest: digestOf("broken" + o.String()), Files: []profile.File{
		{Name: "a.cil", Data: blockWith(block(o, "web"), "(allow process nosuch_t (file (read)))")}}}
}

func caseBroken(b *bench) {
	web, db, old := owner("shop", "web"), owner("store", "db"), owner("shop", "old")
	b.install(true, unit(old, profiletest.First))
	template := profile.Unit{Owner: owner("shop", "template"), Digest: digestOf("template"),
		Files: []profile.File{{Name: "a.cil", Data: blockWith("confine_shop_template", "(blockinherit nosuch)")}}}
	for range 2 { // the second time it is known which are broken
		got := b.h.Install(b.t.Context(), []profile.Unit{broken(old), unit(web, profiletest.First), template, unit(db, profiletest.First)})
		b.refused(got[0], reason.InstallFailed, "does not take it")
		b.refused(got[2], reason.InstallFailed, "template")
		if got[1].Err != nil || got[3].Err != nil {
			b.t.Errorf("%+v", got)
		}
		if refused, ok := errors.AsType[*semodule.Error](got[0].Err); !ok || refused.Log == "" {
			b.t.Error("the log is not attached")
		}
		b.inForce(unit(old, profiletest.First), unit(web, profiletest.First), unit(db, profiletest.First))
	}
	mended := broken(old)
	mended.Files = []profile.File{{Name: "a.cil", Data: blockWith(block(old, "web"), "")}}
	b.install(true, mended)
	b.inForce(mended, unit(web, profiletest.First), unit(db, profiletest.First))
}

func caseDrift(b *bench) {
	web, api := unit(owner("shop", "web"), profiletest.First), unit(owner("store", "api"), profiletest.Second)
	b.install(true, web, api)
	damages := drifts(b.p)
	names := slices.Sorted(maps.Keys(damages))
	if _, ok := b.p.(*memory); !ok { // damage that looks alike to a real policy is done to the one in memory
		names = []string{"a module that was removed", "a module that only the kernel has", "a module that only the store has", "a disabled module", "another rule"}
	}
	for _, name := range names {
		in, err := b.h.Installed(b.t.Context())
		must(b.t, err)
		must(b.t, damages[name](in[0]))
		b.install(true, web)
		b.install(false, web, api)
		b.inForce(web, api)
		if b.t.Failed() {
			b.t.Fatal(name)
		}
	}
	// Whatever stands in an owner's place goes with the owner.
	in, err := b.h.Installed(b.t.Context())
	must(b.t, err)
	must(b.t, damages["another digest"](in[0]))
	b.remove(true, web.Owner)
	b.inForce(api)
	wantKnown(b.t, b.p, block(web.Owner, "web"), false)
}

// killed loses what comes after a commit of the store.
type killed struct {
	policy
	dead error
}

func (k killed) Commit(ctx context.Context, c semodule.Change) error {
	return errors.Join(k.commitUnloaded(ctx, c), k.dead)
}

func caseKilled(b *bench) {
	dead := errors.New("died")
	first, second := unit(owner("shop", "web"), profiletest.First), unit(owner("shop", "web"), profiletest.Fewer)
	b.install(true, first)
	b.h.store = killed{b.p, dead}
	if got := b.h.Install(b.t.Context(), []profile.Unit{second})[0]; !errors.Is(got.Err, dead) {
		b.t.Fatalf("%+v", got)
	}
	if !durableMark(b.h) {
		b.t.Fatal("nothing says that the kernel is behind")
	}
	wantKnown(b.t, b.p, block(first.Owner, "worker"), true)
	b.again()
	b.install(false, second)
	wantKnown(b.t, b.p, block(first.Owner, "worker"), false)
	b.inForce(second)

	// Listing alone tells what is in force, too.
	b.h.store = killed{b.p, dead}
	if got := b.h.Install(b.t.Context(), []profile.Unit{first})[0]; !errors.Is(got.Err, dead) {
		b.t.Fatalf("%+v", got)
	}
	b.again()
	in, err := b.h.Installed(b.t.Context())
	must(b.t, err)
	if len(in) != 1 || len(in[0].References) != 2 {
		b.t.Errorf("listed %+v", in)
	}
	b.remove(true, first.Owner)
	b.inForce()
}

func caseForeign(b *bench) {
	web := unit(owner("shop", "web"), profiletest.First)
	theirs := []semodule.Module{{Name: "confine-other", CIL: blockWith("confine_other", "")}, {Name: "other", CIL: []byte("; other\n")}}
	must(b.t, b.p.Commit(b.t.Context(), semodule.Change{Install: theirs}))
	b.install(true, web)
	foreign, err := b.h.Foreign(b.t.Context())
	must(b.t, err)
	if diff := cmp.Diff([]string{"confine-other", "other"}, foreign); diff != "" {
		b.t.Errorf("foreign (-want +got):\n%s", diff)
	}
	b.remove(true, web.Owner)
	wantModules(b.t, b.p, theirs...)
}
