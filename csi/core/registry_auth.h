#pragma once
// Pull secrets of a publish request.

#include <map>
#include <string>
#include <vector>

#include "common/base/result.h"
#include "common/base/secret.h"

namespace davit::csi {

/// The Docker config.json text in `secrets` (keys .dockerconfigjson or .dockercfg, as Kubernetes
/// stores pull secrets); empty without secrets. Errors never show a value.
Result<Secret> RegistryAuthOf(const std::map<std::string, Secret>& secrets);

/// `text` without any password, token or encoded credential that `auth` holds: what other layers
/// report is shown to users, who may not be those that know the secret.
std::string WithoutSecrets(std::string text, const Secret& auth);

}  // namespace davit::csi
