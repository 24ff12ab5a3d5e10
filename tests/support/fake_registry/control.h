#pragma once
// The fake registry's switches for a test in another process.

#include "tests/support/fake_registry/fake_registry.h"

namespace davit::testing {

/// Reads commands from standard input until it ends, a JSON object a line, and answers each with
/// one line on standard output: {"ok":true,…} or {"error":"…"}.
///   {"do":"fault","kind":"status",…}  the fields of Fault by their names; kinds: status, reset,
///       short_body, wrong_range, ignore_range, html, flip_byte, garbage, wrong_digest, no_digest,
///       drip, delay, hang, redirect, expired_token
///   {"do":"clear"}                    no more faults; ends hangs
///   {"do":"pending"}                  {"pending":N}: faults with `times` that are not used up
///   {"do":"away","away":true}         refuse and cut connections until {"away":false}
///   {"do":"expire_tokens"}
///   {"do":"requests"}                 {"requests":[{method,path,range,status,…}]}
///   {"do":"forget_requests"}
void RunControl(FakeRegistry& registry);

}  // namespace davit::testing
