#include "common/base/result.h"

#include <cerrno>
#include <system_error>

namespace davit {

std::string_view CodeName(Code code) {
  switch (code) {
    case Code::kInvalidArgument:
      return "invalid_argument";
    case Code::kNotFound:
      return "not_found";
    case Code::kAlreadyExists:
      return "already_exists";
    case Code::kPermissionDenied:
      return "permission_denied";
    case Code::kUnauthenticated:
      return "unauthenticated";
    case Code::kUnavailable:
      return "unavailable";
    case Code::kDeadlineExceeded:
      return "deadline_exceeded";
    case Code::kResourceExhausted:
      return "resource_exhausted";
    case Code::kCancelled:
      return "cancelled";
    case Code::kDataLoss:
      return "data_loss";
    case Code::kUnsupported:
      return "unsupported";
    case Code::kFailedPrecondition:
      return "failed_precondition";
    case Code::kAborted:
      return "aborted";
    case Code::kInternal:
      return "internal";
  }
  return "internal";
}

namespace {

Code CodeOfErrno(int sys_errno) {
  switch (sys_errno) {
    case ENOENT:
      return Code::kNotFound;
    case EEXIST:
      return Code::kAlreadyExists;
    case EPERM:
    case EACCES:
    case EROFS:
      return Code::kPermissionDenied;
    case EINVAL:
    case ENOTDIR:
    case EISDIR:
    case ENAMETOOLONG:
      return Code::kInvalidArgument;
    case ENOSPC:
    case EDQUOT:
    case EMFILE:
    case ENFILE:
    case ENOMEM:
      return Code::kResourceExhausted;
    case ENOSYS:
    case EOPNOTSUPP:
      return Code::kUnsupported;
    case EBUSY:
    case ENOTEMPTY:
      return Code::kFailedPrecondition;
    case ECONNREFUSED:
    case ECONNRESET:
    case EPIPE:
    case ENOTCONN:
      return Code::kUnavailable;
    case ETIMEDOUT:
      return Code::kDeadlineExceeded;
    default:
      return Code::kInternal;
  }
}

}  // namespace

Error Error::FromErrno(int sys_errno, std::string_view what) {
  std::string message(what);
  message += ": ";
  message += std::generic_category().message(sys_errno);
  return Error(CodeOfErrno(sys_errno), std::move(message), sys_errno);
}

Error Error::WithContext(std::string_view outer) && {
  message_.insert(0, ": ").insert(0, outer);
  return std::move(*this);
}

Error Error::WithHint(std::string_view hint) && {
  if (hint_.empty()) hint_ = hint;
  return std::move(*this);
}

Error Error::WithRetryAfter(std::chrono::seconds wait) && {
  retry_after_ = wait;
  return std::move(*this);
}

Error Error::WithCode(Code code) && {
  code_ = code;
  return std::move(*this);
}

std::string Error::ToString() const {
  return hint_.empty() ? message_ : message_ + " (" + hint_ + ")";
}

int ToErrno(const Error& error) {
  if (error.sys_errno() != 0) return error.sys_errno();
  switch (error.code()) {
    case Code::kInvalidArgument:
      return EINVAL;
    case Code::kNotFound:
      return ENOENT;
    case Code::kAlreadyExists:
      return EEXIST;
    case Code::kPermissionDenied:
    case Code::kUnauthenticated:
      return EACCES;
    case Code::kResourceExhausted:
      return ENOSPC;
    case Code::kCancelled:
      return EINTR;
    case Code::kUnsupported:
      return EOPNOTSUPP;
    case Code::kFailedPrecondition:
    case Code::kAborted:
      return EBUSY;
    case Code::kUnavailable:
    case Code::kDeadlineExceeded:
    case Code::kDataLoss:
    case Code::kInternal:
      return EIO;
  }
  return EIO;
}

}  // namespace davit
