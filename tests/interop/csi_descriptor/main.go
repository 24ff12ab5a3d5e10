// Prints the descriptor of the official CSI package as text: one line per message, field, enum
// value and method. official.txt is its output; csi_descriptor_test compares it with davit's own
// csi.proto, and with a fresh run of this program where there is Go.
package main

import (
	"bufio"
	"fmt"
	"os"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/reflect/protoreflect"
)

var out = bufio.NewWriter(os.Stdout)

func typeOf(f protoreflect.FieldDescriptor) string {
	switch f.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return string(f.Message().FullName())
	case protoreflect.EnumKind:
		return string(f.Enum().FullName())
	}
	return f.Kind().String()
}

func enums(list protoreflect.EnumDescriptors) {
	for i := 0; i < list.Len(); i++ {
		e := list.Get(i)
		fmt.Fprintf(out, "enum %s\n", e.FullName())
		for j := 0; j < e.Values().Len(); j++ {
			v := e.Values().Get(j)
			fmt.Fprintf(out, "value %s.%s %d\n", e.FullName(), v.Name(), v.Number())
		}
	}
}

func messages(list protoreflect.MessageDescriptors) {
	for i := 0; i < list.Len(); i++ {
		m := list.Get(i)
		fmt.Fprintf(out, "message %s\n", m.FullName())
		for j := 0; j < m.Fields().Len(); j++ {
			f := m.Fields().Get(j)
			oneof := "-"
			if o := f.ContainingOneof(); o != nil {
				oneof = string(o.Name())
			}
			fmt.Fprintf(out, "field %s %d %s %s %s\n", f.FullName(), f.Number(), f.Cardinality(), typeOf(f), oneof)
		}
		enums(m.Enums())
		messages(m.Messages())
	}
}

func main() {
	file := csi.File_csi_proto
	fmt.Fprintf(out, "package %s %s\n", file.Package(), file.Syntax())
	enums(file.Enums())
	messages(file.Messages())
	for i := 0; i < file.Services().Len(); i++ {
		s := file.Services().Get(i)
		fmt.Fprintf(out, "service %s\n", s.FullName())
		for j := 0; j < s.Methods().Len(); j++ {
			m := s.Methods().Get(j)
			fmt.Fprintf(out, "method %s %s %s %t %t\n", m.FullName(), m.Input().FullName(), m.Output().FullName(), m.IsStreamingClient(), m.IsStreamingServer())
		}
	}
	if err := out.Flush(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
