SUMMARY = "Stands for the builder image's apt: only the configuration that OE-Core completes"
LICENSE = "MIT"
inherit native
do_install() {
    install -d ${D}${sysconfdir}/apt
    cat > ${D}${sysconfdir}/apt/apt.conf.sample << 'END'
Dir "/"
{
   State "#ROOTFS#/var/lib/apt/" { Lists "#APTCONF#/lists/"; status "#ROOTFS#/var/lib/dpkg/status"; };
   Cache "#APTCONF#/cache/" { Archives "#APTCONF#/cache/archives/"; pkgcache ""; srcpkgcache ""; };
   Etc "#APTCONF#" { Preferences "preferences"; PreferencesParts "preferences.d";
                     SourceList "sources.list"; SourceParts "sources.list.d";
                     TrustedParts "trusted.gpg.d"; };
   Bin { methods "/usr/lib/apt/methods/"; gzip "gzip"; dpkg "dpkg"; };
   Log "/tmp/";
   Log::Terminal "";
   Log::History "";
   Log::Planner "/dev/null";
};
APT
{
  Architecture "amd64";
  Install-Recommends "true";
  Immediate-Configure "false";
  Get { Assume-Yes "true"; AllowUnauthenticated "true"; };
};
APT::Sandbox::User "root";
Acquire { AllowInsecureRepositories "true"; Languages "none"; };
PackageManager::Configure "no";
DPkg::Path "";
DPkg::ConfigurePending "false";
DPkg::Options {"--root=#ROOTFS#";"--admindir=#ROOTFS#/var/lib/dpkg";"--force-all";"--no-force-overwrite";"--no-debsig";"--log=/dev/null"};
END
}
