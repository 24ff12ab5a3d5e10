# Sub-commands of `davit` that talk to the node's daemon.
add_library(cli_davit_node STATIC davit_node.cc node_mount.cc node_session.cc)
target_include_directories(cli_davit_node PUBLIC ${CMAKE_SOURCE_DIR})
target_link_libraries(cli_davit_node PUBLIC common_base common_config common_digest common_http
  common_json daemon_client daemon_core storage_registry cli_davitd PRIVATE fmt::fmt davit_warnings)
