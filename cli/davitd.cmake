davit_library(cli_davitd
  SRCS davitd_app.cc
  HDRS davitd_app.h
  DEPS cli_common common_base common_config daemon_core)
davit_binary(davitd SRCS davitd_main.cc DEPS cli_davitd)
