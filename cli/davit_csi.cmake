add_library(cli_davit_csi STATIC davit_csi_app.cc)
target_include_directories(cli_davit_csi PUBLIC ${CMAKE_SOURCE_DIR})
target_link_libraries(cli_davit_csi PUBLIC common_base common_config common_http csi_core csi_rpc
  daemon_client PRIVATE fmt::fmt davit_warnings)
davit_binary(davit-csi SRCS davit_csi_main.cc DEPS cli_davit_csi)
