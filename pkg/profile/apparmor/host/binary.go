package host

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// The codes of a compiled policy: Linux, security/apparmor/include/policy_unpack.h,
// enum aa_code. Numbers are little-endian.
const (
	codeU8 = iota
	codeU16
	codeU32
	codeU64
	codeName // names what follows
	codeString
	codeBlob
	codeStruct
	codeStructEnd
	codeList
	codeListEnd
	codeArray
	codeArrayEnd
)

// Bounds of a compiled policy.
const (
	maxCompiled = 16 << 20 // of one unit; large profiles take some hundred KiB
	maxNames    = 1024
	maxNesting  = 64
)

// compiled is one profile as the kernel will hold it.
type compiled struct {
	name string
	// sum is SHA-256 over the version and the profile's bytes, as the kernel
	// reports it since 6.8 (Linux, security/apparmor/crypto.c, aa_calc_profile_hash).
	sum string
}

var errCompiled = errors.New("what apparmor_parser made is no compiled policy")

// readCompiled returns the profiles of a compiled policy. It reads the names
// where the kernel will, so that what is loaded cannot be called otherwise.
func readCompiled(data []byte) ([]compiled, error) {
	if len(data) > maxCompiled {
		return nil, fmt.Errorf("%w: larger than %d bytes", errCompiled, maxCompiled)
	}
	r := &reader{data: data}
	var found []compiled
	version, known := uint32(0), false
	for r.at < len(data) && r.err == nil {
		if r.tryName("version") {
			version, known = r.u32(codeU32), true
		}
		if r.tryName("namespace") {
			return nil, fmt.Errorf("%w: it names a policy namespace", errCompiled)
		}
		start := r.at
		if !r.tryName("profile") {
			r.fail("no profile")
		}
		r.code(codeStruct)
		name := r.text()
		if r.tryName("rename") {
			r.fail("it takes another profile's name")
		}
		r.rest(codeStructEnd, 1)
		if !known || len(found) >= maxNames {
			r.fail("no version, or too many profiles")
		}
		if r.err == nil {
			found = append(found, compiled{name: name, sum: sumOf(version, data[start:r.at])})
		}
	}
	if r.err == nil && len(found) == 0 {
		r.fail("it is empty")
	}
	return found, r.err
}

func sumOf(version uint32, profile []byte) string {
	sum := sha256.New()
	sum.Write(binary.LittleEndian.AppendUint32(nil, version)) // never fails, hash.Hash
	sum.Write(profile)
	return hex.EncodeToString(sum.Sum(nil))
}

// reader walks a compiled policy. Its first error stays.
type reader struct {
	data []byte
	at   int
	err  error
}

func (r *reader) fail(why string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s at byte %d", errCompiled, why, r.at)
	}
}

func (r *reader) take(n int) []byte {
	if r.err != nil {
		return nil
	}
	if n < 0 || n > len(r.data)-r.at {
		r.fail("it is cut off")
		return nil
	}
	r.at += n
	return r.data[r.at-n : r.at]
}

func (r *reader) code(want byte) {
	if got := r.take(1); len(got) == 1 && got[0] != want {
		r.fail(fmt.Sprintf("code %d instead of %d", got[0], want))
	}
}

func (r *reader) u16() int {
	if b := r.take(2); b != nil {
		return int(binary.LittleEndian.Uint16(b))
	}
	return 0
}

func (r *reader) u32(code byte) uint32 {
	r.code(code)
	if b := r.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

// tryName reads a name, if it is this one.
func (r *reader) tryName(name string) bool {
	want := binary.LittleEndian.AppendUint16([]byte{codeName}, uint16(len(name)+1)) //nolint:gosec // short literals
	want = append(append(want, name...), 0)
	if r.err != nil || !bytes.HasPrefix(r.data[r.at:], want) {
		return false
	}
	r.at += len(want)
	return true
}

// text reads a string, which ends in a zero byte and holds no other.
func (r *reader) text() string {
	r.code(codeString)
	s, ended := strings.CutSuffix(string(r.take(r.u16())), "\x00")
	if r.err == nil && (!ended || s == "" || strings.ContainsRune(s, 0)) {
		r.fail("a string without its end")
	}
	return s
}

// rest skips all up to the end of the structure that is open.
func (r *reader) rest(end byte, depth int) {
	for r.err == nil {
		head := r.take(1)
		if head == nil || depth > maxNesting {
			r.fail("it is nested too deep")
			return
		}
		switch head[0] {
		case end:
			return
		case codeU8:
			r.take(1)
		case codeU16:
			r.take(2)
		case codeU32:
			r.take(4)
		case codeU64:
			r.take(8)
		case codeName, codeString:
			r.take(r.u16())
		case codeBlob:
			if size := r.take(4); size != nil {
				r.take(int(binary.LittleEndian.Uint32(size)))
			}
		case codeStruct:
			r.rest(codeStructEnd, depth+1)
		case codeList:
			r.rest(codeListEnd, depth+1)
		case codeArray:
			r.take(2)
			r.rest(codeArrayEnd, depth+1)
		default:
			r.fail(fmt.Sprintf("unknown code %d", head[0]))
		}
	}
}
