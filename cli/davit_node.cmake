# Sub-commands of `davit` that talk to the node's daemon.
davit_library(cli_davit_node
  SRCS davit_node.cc mount_progress.cc node_mount.cc node_session.cc node_stat.cc
  HDRS mount_progress.h node_session.h
  DEPS cli_common common_base common_config common_digest common_http common_json daemon_client daemon_core
    storage_registry cli_davitd
  PRIVATE fmt::fmt)
