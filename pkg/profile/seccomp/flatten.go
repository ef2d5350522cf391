package seccomp

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/confine-dev/confine/pkg/profile/internal/jsontree"
	"github.com/confine-dev/confine/pkg/reason"
)

// FlattenOptions say for which nodes and containers a dialect is resolved.
type FlattenOptions struct {
	// Arch is the nodes' architecture as GOARCH; empty means "amd64".
	Arch string
	// Caps are the containers' capabilities, such as "CAP_NET_ADMIN".
	Caps []string
	// MinKernel is the least kernel version of the nodes, such as "5.15";
	// empty means "4.19", the oldest that Kubernetes recommends
	// (https://kubernetes.io/docs/reference/node/kernel-version-requirements/).
	MinKernel string
}

const (
	defaultFlattenArch   = "amd64"
	defaultFlattenKernel = "4.19"
	maxDialectEntries    = 512
	maxDialectList       = 256
	maxCommentBytes      = 4096
)

// Flatten turns the dialect of moby and containers-common into plain
// runtime-spec JSON: it picks the architectures of archMap, keeps the entries
// whose includes and excludes fit the options, and drops comments. The same
// input and options give the same bytes. Plain runtime-spec JSON is accepted
// too, and gets the architecture where it names none. The error is
// ProfileInvalid at line:column, or TooLarge.
func Flatten(data []byte, opts FlattenOptions) ([]byte, error) {
	const file = "profile"
	target, err := newTarget(opts)
	if err != nil {
		return nil, reason.New(reason.ProfileInvalid, "flatten", "%w", err).WithAdvice("correct the options")
	}
	root, err := readTree(file, data)
	if err != nil {
		return nil, err
	}
	f := &flattener{profileReader: profileReader{data: data, p: &Profile{}}, target: target}
	if err := f.profile(root); err != nil {
		return nil, invalid(file, data, err)
	}
	flat, err := f.p.Marshal()
	if err != nil {
		return nil, reason.New(reason.ProfileInvalid, file, "%w", err)
	}
	if _, err := Parse("flattened profile", flat); err != nil {
		return nil, err
	}
	return flat, nil
}

// target is what conditions are held against.
type target struct {
	arch   Arch
	words  []string // what the dialects call the architecture
	caps   []string
	kernel kernelVersion
}

type kernelVersion struct{ major, minor uint64 }

func (v kernelVersion) atLeast(w kernelVersion) bool {
	return v.major > w.major || (v.major == w.major && v.minor >= w.minor)
}

func newTarget(opts FlattenOptions) (target, error) {
	arch, kernel := opts.Arch, opts.MinKernel
	if arch == "" {
		arch = defaultFlattenArch
	}
	if kernel == "" {
		kernel = defaultFlattenKernel
	}
	version, err := parseKernel(kernel)
	if err != nil {
		return target{}, err
	}
	for _, c := range opts.Caps {
		if !strings.HasPrefix(c, "CAP_") || c != strings.ToUpper(c) {
			return target{}, fmt.Errorf("%q is no capability: they are written like CAP_SYS_ADMIN", c)
		}
	}
	for _, d := range dialectArches() {
		if d.goarch == arch {
			return target{arch: d.arch, words: d.words, caps: opts.Caps, kernel: version}, nil
		}
	}
	return target{}, fmt.Errorf("the architecture %q is unknown: use a GOARCH such as amd64 or arm64", arch)
}

type dialectArch struct {
	goarch string
	arch   Arch
	words  []string
}

// dialectArches are the words of github.com/moby/profiles/seccomp
// (nativeToSeccomp, goToNative) and of libseccomp-golang, which
// containers-common uses.
func dialectArches() []dialectArch {
	return []dialectArch{
		{"386", ArchX86, []string{"x86"}},
		{"amd64", ArchX86_64, []string{"amd64"}},
		{"arm", ArchARM, []string{"arm"}},
		{"arm64", ArchAARCH64, []string{"arm64"}},
		{"loong64", ArchLOONGARCH64, []string{"loong64", "loongarch64"}},
		{"mips64", ArchMIPS64, []string{"mips64"}},
		{"mips64le", ArchMIPSEL64, []string{"mipsel64"}},
		{"ppc64", ArchPPC64, []string{"ppc64"}},
		{"ppc64le", ArchPPC64LE, []string{"ppc64le"}},
		{"riscv64", ArchRISCV64, []string{"riscv64"}},
		{"s390x", ArchS390X, []string{"s390x"}},
	}
}

// parseKernel reads "4.8"; what follows the second number is ignored, as the
// dialect's readers ignore it in a node's own version.
func parseKernel(text string) (kernelVersion, error) {
	parts := strings.SplitN(text, ".", 3)
	if len(parts) < 2 {
		return kernelVersion{}, fmt.Errorf("the kernel version %q is not written like 5.15", text)
	}
	major, err1 := strconv.ParseUint(parts[0], 10, 8)
	minor, err2 := strconv.ParseUint(parts[1], 10, 8)
	if err1 != nil || err2 != nil || (major == 0 && minor == 0) {
		return kernelVersion{}, fmt.Errorf("the kernel version %q is not written like 5.15", text)
	}
	return kernelVersion{major, minor}, nil
}

type flattener struct {
	profileReader
	target target
}

func (f *flattener) profile(root *jsontree.Node) error {
	var mapped []Arch
	hasMap := false
	fields := f.profileFields(maxDialectEntries, f.entry)
	fields["archMap"] = orNull(func(n *jsontree.Node) error {
		hasMap = len(n.Items) > 0
		return n.List(maxDialectList, func(n *jsontree.Node) error { return f.archMap(n, &mapped) })
	})
	var defaultErrno *uint32
	fields["defaultErrno"] = f.errno(&defaultErrno)
	if err := root.Read(fields, notDialect); err != nil {
		return err
	}
	if defaultErrno != nil {
		f.p.DefaultErrnoRet = defaultErrno
	}
	if hasMap && len(f.p.Architectures) > 0 {
		return jsontree.Errorf(root.At("archMap"), "architectures and archMap must not stand together")
	}
	if len(f.p.Architectures) == 0 {
		f.p.Architectures = mapped
	}
	if len(f.p.Architectures) == 0 {
		f.p.Architectures = []Arch{f.target.arch}
	}
	return f.wholeProfile(root)
}

func (f *flattener) archMap(n *jsontree.Node, mapped *[]Arch) error {
	var arch Arch
	var sub []Arch
	err := n.Read(jsontree.Fields{
		"architecture":     word(&arch, Arches()),
		"subArchitectures": words(&sub, Arches()),
	}, notDialect)
	if err == nil && arch == f.target.arch && len(*mapped) == 0 {
		*mapped = append([]Arch{arch}, sub...)
	}
	return err
}

func (f *flattener) entry(n *jsontree.Node) error {
	keep := true
	var single Syscall // of the older field name
	var errno *uint32
	s, err := f.syscall(n, func(s *Syscall) jsontree.Fields {
		fields := f.syscallFields(s)
		names := fields["names"]
		fields["names"] = func(n *jsontree.Node) error {
			if err := names(n); err != nil || len(single.Names) == 0 || len(n.Items) == 0 {
				return err
			}
			return jsontree.Errorf(n.Offset, "name and names must not stand together")
		}
		fields["name"] = f.singleName(s, &single)
		fields["comment"] = func(n *jsontree.Node) error { _, err := n.Str(maxCommentBytes); return err }
		fields["errno"] = f.errno(&errno)
		fields["includes"] = f.condition(func(met bool) { keep = keep && met }, true)
		fields["excludes"] = f.condition(func(met bool) { keep = keep && !met }, false)
		return fields
	}, notDialect)
	if err != nil {
		return err
	}
	if errno != nil {
		if !s.Action.takesErrno() {
			return jsontree.Errorf(n.At("errno"), "%s takes no errno", s.Action)
		}
		s.ErrnoRet = errno
	}
	if keep {
		f.p.Syscalls = append(f.p.Syscalls, s)
	}
	return nil
}

func (f *flattener) singleName(s, single *Syscall) func(*jsontree.Node) error {
	return func(n *jsontree.Node) error {
		if n.Kind == jsontree.String && n.Text == "" {
			return nil
		}
		if len(s.Names) > 0 {
			return jsontree.Errorf(n.Offset, "name and names must not stand together")
		}
		if err := f.readName(n, single); err != nil {
			return err
		}
		s.Names = single.Names
		return nil
	}
}

// condition reads includes (every part must be met) or excludes (any part
// excludes), and tells the outcome. Absent parts do not count.
func (f *flattener) condition(tell func(met bool), every bool) func(*jsontree.Node) error {
	return orNull(func(n *jsontree.Node) error {
		var caps, arches []string
		var kernel *kernelVersion
		err := n.Read(jsontree.Fields{
			"caps":      strs(&caps),
			"arches":    strs(&arches),
			"minKernel": kernelField(&kernel),
		}, notDialect)
		if err != nil {
			return err
		}
		met := every
		part := func(ok bool) {
			if every {
				met = met && ok
			} else {
				met = met || ok
			}
		}
		for _, c := range caps {
			part(slices.Contains(f.target.caps, c))
		}
		if len(arches) > 0 {
			part(slices.ContainsFunc(f.target.words, func(w string) bool { return slices.Contains(arches, w) }))
		}
		if kernel != nil {
			part(f.target.kernel.atLeast(*kernel))
		}
		tell(met)
		return nil
	})
}

func kernelField(to **kernelVersion) func(*jsontree.Node) error {
	return orNull(func(n *jsontree.Node) error {
		text, err := n.Str(maxWordBytes)
		if err != nil || text == "" {
			return err
		}
		v, err := parseKernel(text)
		if err != nil {
			return jsontree.Errorf(n.Offset, "%s", err.Error())
		}
		*to = &v
		return nil
	})
}

func strs(to *[]string) func(*jsontree.Node) error {
	return orNull(func(n *jsontree.Node) error {
		return n.List(maxDialectList, func(n *jsontree.Node) error {
			v, err := n.Str(maxWordBytes)
			*to = append(*to, v)
			return err
		})
	})
}

// errno reads containers-common's errno, a name or digits, which goes before
// errnoRet there.
func (f *flattener) errno(to **uint32) func(*jsontree.Node) error {
	return func(n *jsontree.Node) error {
		text, err := n.Str(maxWordBytes)
		if err != nil || text == "" {
			return err
		}
		value, known := theBaseline().errnos[text]
		if digits, err := strconv.ParseUint(text, 10, 32); err == nil {
			value, known = uint32(digits), true
		} else if f.target.arch == ArchMIPS64 || f.target.arch == ArchMIPSEL64 {
			return jsontree.Errorf(n.Offset, "write the errno %q as a number: MIPS counts differently", text)
		}
		if !known {
			return jsontree.Errorf(n.Offset, "the errno %q is unknown", text)
		}
		*to = &value
		return nil
	}
}

func notDialect(key string) string {
	return fmt.Sprintf("the field %q is neither of the runtime-spec nor of the moby and containers-common dialect", key)
}
