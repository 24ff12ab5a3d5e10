davit_library(cli_davit_csi
  SRCS davit_csi_app.cc
  HDRS davit_csi_app.h
  DEPS cli_common common_base common_config common_http csi_core csi_rpc daemon_client
  PRIVATE fmt::fmt)
davit_binary(davit-csi SRCS davit_csi_main.cc DEPS cli_davit_csi)
