package arch

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
)

// maxTextBytes bounds which files are read as text.
const maxTextBytes = 1 << 20

// textFiles returns the text files that belong to the project, with content.
func textFiles(fsys fs.FS) (map[string][]byte, error) {
	files := map[string][]byte{}
	err := fs.WalkDir(fsys, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if slices.Contains([]string{".git", "bin", "dist", "testdata"}, name) {
				return fs.SkipDir
			}
			return nil
		}
		info, err := entry.Info()
		// Files that come and go while the tree is walked are nobody's source.
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !info.Mode().IsRegular() || info.Size() > maxTextBytes || path.Ext(name) == ".sum" {
			return err
		}
		data, err := fs.ReadFile(fsys, name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && !bytes.ContainsRune(data, 0) {
			files[name] = data
		}
		return err
	})
	return files, err
}

// machineNames match what is true on one machine alone: home and work folders,
// and the hosts that one machine's package clients happen to be set up with.
func machineNames() []*regexp.Regexp {
	return []*regexp.Regexp{
		regexp.MustCompile(`(?:^|[\s"'=:(` + "`" + `])/(?:work|workspace|home/[a-z]+|Users/[A-Za-z]+|root/[a-z.]+)\b`),
		regexp.MustCompile(`proxy\.golang\.org|sum\.golang\.org|deb\.debian\.org|registry\.npmjs\.org`),
	}
}

// CheckNoMachineNames refuses texts that only make sense on one machine.
func CheckNoMachineNames(fsys fs.FS) ([]Violation, error) {
	files, err := textFiles(fsys)
	if err != nil {
		return nil, err
	}
	var found []Violation
	for name, data := range files {
		for i, line := range strings.Split(string(data), "\n") {
			for _, pattern := range machineNames() {
				if hit := pattern.FindString(line); hit != "" {
					found = append(found, Violation{
						Place:   fmt.Sprintf("%s:%d", name, i+1),
						Message: fmt.Sprintf("%q names one machine", strings.TrimSpace(hit)),
					})
				}
			}
		}
	}
	return sorted(found), nil
}

// markdownLink matches the target of [text](target).
func markdownLink() *regexp.Regexp { return regexp.MustCompile(`\]\(([^)\s]+)\)`) }

// CheckLinks refuses links in Markdown to files that are not there.
func CheckLinks(fsys fs.FS) ([]Violation, error) {
	files, err := textFiles(fsys)
	if err != nil {
		return nil, err
	}
	var found []Violation
	for name, data := range files {
		if path.Ext(name) != ".md" {
			continue
		}
		for i, line := range strings.Split(string(data), "\n") {
			for _, match := range markdownLink().FindAllStringSubmatch(line, -1) {
				target, _, _ := strings.Cut(match[1], "#")
				if target == "" || strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
					continue
				}
				file := path.Join(path.Dir(name), target)
				if _, err := fs.Stat(fsys, file); err != nil {
					found = append(found, Violation{Place: fmt.Sprintf("%s:%d", name, i+1), Message: "link to " + file + ", which is not there"})
				}
			}
		}
	}
	return sorted(found), nil
}

func sorted(found []Violation) []Violation {
	slices.SortFunc(found, func(a, b Violation) int { return strings.Compare(a.String(), b.String()) })
	return found
}
