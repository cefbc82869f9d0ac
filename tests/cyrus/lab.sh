#!/bin/bash
# A real Cyrus Murder (Debian 12 packages, Cyrus 3.6) on loopback, for the interop tests and benchmarks.
#
#   lab.sh install     fetch and unpack the Debian packages (root, apt)
#   lab.sh setup       write configuration, users, hosts and services entries; may be repeated
#   lab.sh start [n..] start instances (default: mupdate be1 be2 fe1)
#   lab.sh stop [n..]  stop them (by their pid files only)
#   lab.sh status
#   lab.sh populate    make INBOX of user1..userN, half on each backend
#   lab.sh reset       stop everything and wipe mail and lists, keep the users
#   lab.sh up          setup, start, populate
#
#   mupdate.murder.test 127.0.0.10  MUPDATE master :3905 (and an admin imapd :143)
#   be1.murder.test     127.0.0.11  backend  imap 143, pop3 110, lmtp 24, sieve 4190
#   be2.murder.test     127.0.0.12  backend  imap 143, pop3 110, lmtp 24, sieve 4190
#   fe1.murder.test     127.0.0.20  frontend imap 143, pop3 110, lmtp 24, mupdate slave :3905
#   be9.murder.test     127.0.0.13  a name for a backend of ours
#
# Environment: LAB_ROOT (default /tmp/murder-cyrus-lab), LAB_USERS (default 20), LAB_MUPDATE (another master for be/fe:
# host or host:port), LAB_EXTRA (lines added to every imapd.conf), LAB_VIRTDOMAINS (off),
# LAB_PATIENCE (tenths of a second until a stop gets stronger).
set -u
HERE=$(cd "$(dirname "$0")" && pwd)
LAB_ROOT=${LAB_ROOT:-/tmp/murder-cyrus-lab}
LAB_USERS=${LAB_USERS:-20}
LAB_MUPDATE=${LAB_MUPDATE:-mupdate.murder.test}
LAB_EXTRA=${LAB_EXTRA:-}
LAB_VIRTDOMAINS=${LAB_VIRTDOMAINS:-off}
LAB_PATIENCE=${LAB_PATIENCE:-50}
LAB_TMPFS=${LAB_TMPFS:-/dev/shm/murder-cyrus-lab}   # Debian keeps proc/ and lock/ on tmpfs (/run/cyrus) too
DOMAIN=murder.test
PKG=$LAB_ROOT/pkg                    # private extraction of the Debian packages
BIN=$PKG/usr/lib/cyrus/bin
libraries() { export LD_LIBRARY_PATH=$(echo $PKG/usr/lib/*-linux-gnu); }  # known only once unpacked
libraries
MASTER=$BIN/master
ALL="mupdate be1 be2 fe1"

ip_of() { case $1 in mupdate) echo 127.0.0.10;; be1) echo 127.0.0.11;; be2) echo 127.0.0.12;; fe1) echo 127.0.0.20;; esac; }

install_pkgs() {
  # The Debian packages are unpacked into $PKG, not installed: cyrus-imapd and dovecot-imapd
  # conflict ("imap-server"), and this way neither evicts the other. Only the libraries the
  # binaries need are installed for real.
  local deps
  mkdir -p $LAB_ROOT/debs
  DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=500 install -y --no-install-recommends \
    sasl2-bin libsasl2-2 libsasl2-modules libsasl2-modules-db tcpdump strace adduser \
    libwrap0 zlib1g libssl3 libcom-err2
  (cd $LAB_ROOT/debs && apt-get download cyrus-imapd cyrus-murder cyrus-pop3d cyrus-common \
    cyrus-clients cyrus-admin cyrus-replication libcyrus-imap-perl)
  deps=$(for d in $LAB_ROOT/debs/*.deb; do dpkg-deb -f $d Depends; done | tr ',' '\n' |
         sed 's/|.*//; s/([^)]*)//; s/ //g' | grep '^lib' | grep -v '^libcyrus' | sort -u)
  DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=500 install -y --no-install-recommends $deps
  mkdir -p $PKG
  for d in $LAB_ROOT/debs/*.deb; do dpkg-deb -x $d $PKG; done
  id cyrus >/dev/null 2>&1 || adduser --system --no-create-home --home /var/spool/cyrus --ingroup mail cyrus
}

hosts() {
  local n
  for n in $ALL; do
    grep -q "[[:space:]]$n\.$DOMAIN" /etc/hosts || echo "$(ip_of $n) $n.$DOMAIN $n" >> /etc/hosts
  done
  grep -q "[[:space:]]be9\.$DOMAIN" /etc/hosts || echo "127.0.0.13 be9.$DOMAIN be9" >> /etc/hosts
  # Debian's /etc/services lacks these two; Cyrus looks services up by NAME
  grep -qE '^mupdate[[:space:]]' /etc/services || printf 'mupdate\t\t3905/tcp\t\t\t# Cyrus MUPDATE\n' >> /etc/services
  grep -qE '^lmtp[[:space:]]'    /etc/services || printf 'lmtp\t\t24/tcp\t\t\t\t# LMTP\n' >> /etc/services
}

common_conf() { # name
  local n=$1 d=$LAB_ROOT/$1
  cat <<C
configdirectory: $d/conf
partition-default: $d/spool
defaultpartition: default
servername: $n.$DOMAIN
sievedir: $d/sieve
proc_path: $LAB_TMPFS/$n/proc
mboxname_lockpath: $LAB_TMPFS/$n/lock
lmtpsocket: $d/conf/socket/lmtp
idlesocket: $d/conf/socket/idle
notifysocket: $d/conf/socket/notify
altnamespace: no
unixhierarchysep: yes
virtdomains: $LAB_VIRTDOMAINS
hashimapspool: yes
allowplaintext: yes
allowanonymouslogin: no
sasl_mech_list: PLAIN
sasl_pwcheck_method: auxprop
sasl_auxprop_plugin: sasldb
sasl_sasldb_path: $LAB_ROOT/sasldb2
sasl_auto_transition: no
admins: cyrus murder
allowusermoves: yes
popminpoll: 0
syslog_prefix: $n
maxmessagesize: 0
duplicatesuppression: no
conversations: no
umask: 077
C
}

gen() {
  local n d
  mkdir -p $LAB_ROOT
  for n in $ALL; do
    d=$LAB_ROOT/$n
    mkdir -p $d/conf/{socket,log,db,msg,ptclient,user,quota} $d/spool $d/sieve $LAB_TMPFS/$n/{proc,lock}
    common_conf $n > $d/imapd.conf
  done
  cat >> $LAB_ROOT/mupdate/imapd.conf <<C
mupdate_connections_max: 1024
mupdate_workers_max: 64
C
  for n in be1 be2; do
    cat >> $LAB_ROOT/$n/imapd.conf <<C
mupdate_server: $LAB_MUPDATE
mupdate_username: murder
mupdate_authname: murder
mupdate_password: secret
client_bind: yes
proxyservers: murder
lmtp_admins: cyrus murder
proxy_authname: murder
proxy_password: secret
be1_password: secret
be2_password: secret
autocreate_quota: 0
C
  done
  cat >> $LAB_ROOT/fe1/imapd.conf <<C
mupdate_server: $LAB_MUPDATE
mupdate_username: murder
mupdate_authname: murder
mupdate_password: secret
client_bind: yes
proxy_authname: murder
proxy_password: secret
be1_password: secret
be2_password: secret
lmtp_admins: cyrus murder
C
  for n in $ALL; do [ -n "$LAB_EXTRA" ] && printf '%b\n' "$LAB_EXTRA" >> $LAB_ROOT/$n/imapd.conf; done

  cat > $LAB_ROOT/mupdate/cyrus.conf <<C
START {
  recover cmd="$BIN/ctl_cyrusdb -C $LAB_ROOT/mupdate/imapd.conf -r"
}
SERVICES {
  mupdate cmd="$BIN/mupdate -C $LAB_ROOT/mupdate/imapd.conf -m" listen="127.0.0.10:3905" prefork=1
  imap    cmd="$BIN/imapd -C $LAB_ROOT/mupdate/imapd.conf"      listen="127.0.0.10:143"  prefork=0
}
EVENTS {
  checkpoint cmd="$BIN/ctl_cyrusdb -C $LAB_ROOT/mupdate/imapd.conf -c" period=30
}
C
  for n in be1 be2; do
    d=$LAB_ROOT/$n; i=$(ip_of $n)
    cat > $d/cyrus.conf <<C
START {
  recover cmd="$BIN/ctl_cyrusdb -C $d/imapd.conf -r"
  mupdatepush cmd="$BIN/ctl_mboxlist -C $d/imapd.conf -m"
}
SERVICES {
  imap cmd="$BIN/imapd -C $d/imapd.conf" listen="$i:143" prefork=5
  pop3 cmd="$BIN/pop3d -C $d/imapd.conf" listen="$i:110" prefork=1
  lmtp cmd="$BIN/lmtpd -C $d/imapd.conf" listen="$i:24" prefork=1
  lmtpunix cmd="$BIN/lmtpd -C $d/imapd.conf" listen="$d/conf/socket/lmtp" prefork=0
  sieve cmd="$BIN/timsieved -C $d/imapd.conf" listen="$i:4190" prefork=0
}
EVENTS {
  checkpoint cmd="$BIN/ctl_cyrusdb -C $d/imapd.conf -c" period=30
}
C
  done
  d=$LAB_ROOT/fe1
  cat > $d/cyrus.conf <<C
START {
  recover cmd="$BIN/ctl_cyrusdb -C $d/imapd.conf -r"
}
SERVICES {
  mupdate cmd="$BIN/mupdate -C $d/imapd.conf" listen="127.0.0.20:3905" prefork=1
  imap cmd="$BIN/imapd -C $d/imapd.conf" listen="127.0.0.20:143" prefork=5
  pop3 cmd="$BIN/pop3d -C $d/imapd.conf" listen="127.0.0.20:110" prefork=1
  lmtp cmd="$BIN/lmtpd -C $d/imapd.conf" listen="127.0.0.20:24" prefork=1
  sieve cmd="$BIN/timsieved -C $d/imapd.conf" listen="127.0.0.20:4190" prefork=0
}
EVENTS {
  checkpoint cmd="$BIN/ctl_cyrusdb -C $d/imapd.conf -c" period=30
}
C
  chown -R cyrus:mail $LAB_ROOT/mupdate $LAB_ROOT/be1 $LAB_ROOT/be2 $LAB_ROOT/fe1 $LAB_TMPFS
  chmod 755 $LAB_ROOT
}

users() {
  # sasldb looks users up in the realm = servername, so every user exists once per server
  local n u stamp=$LAB_ROOT/.users.$LAB_USERS
  [ -e $stamp ] && return
  for n in $ALL; do
    for u in cyrus murder $(seq -f 'user%.0f' 1 $LAB_USERS); do
      printf secret | saslpasswd2 -p -c -f $LAB_ROOT/sasldb2 -u $n.$DOMAIN $u
    done
  done
  chown cyrus:mail $LAB_ROOT/sasldb2; chmod 600 $LAB_ROOT/sasldb2
  touch $stamp
}

setup() { [ -x $BIN/mupdate ] || install_pkgs; libraries; hosts; gen; users; }

running() { local p; p=$(cat $LAB_ROOT/$1/master.pid 2>/dev/null) && [ -n "$p" ] && kill -0 "$p" 2>/dev/null && tr '\\0' ' ' < /proc/$p/cmdline | grep -q "$LAB_ROOT/$1/" 2>/dev/null; }

wait_port() { # ip port
  local i
  for i in $(seq 100); do
    (exec 3<>/dev/tcp/$1/$2) 2>/dev/null && return 0
    sleep 0.1
  done
  echo "no answer on $1:$2" >&2; return 1
}

answers() { (exec 3<>/dev/tcp/$1/$2) 2>/dev/null; }  # ip port
ports_of() { sed -n 's/.*listen="[0-9.]*:\([0-9]*\)".*/\1/p' $LAB_ROOT/$1/cyrus.conf; }  # node

# A process that was killed may hold its sockets for a moment still: a new master that cannot have them goes on without.
wait_free() { # node
  local port i
  for port in $(ports_of $1); do
    for i in $(seq 100); do answers $(ip_of $1) $port || break; sleep 0.1; done
  done
}

start() {
  local n d i port
  for n in ${@:-$ALL}; do
    d=$LAB_ROOT/$n; i=$(ip_of $n)
    if running $n; then echo "$n already running (pid $(cat $d/master.pid))"; continue; fi
    # CYRUS_VERBOSE etc. stay unset; -d = daemonise
    (cd $d/conf && $MASTER -C $d/imapd.conf -M $d/cyrus.conf -p $d/master.pid -d)
    for port in $(ports_of $n); do wait_port $i $port; done
    echo "$n started (pid $(cat $d/master.pid 2>/dev/null))"
  done
}

stop() {
  local n p i
  for n in ${@:-fe1 be2 be1 mupdate}; do
    if running $n; then
      p=$(cat $LAB_ROOT/$n/master.pid)
      kill -${STOP_SIGNAL:-QUIT} $p 2>/dev/null   # QUIT: children finish their sessions; falls back to TERM
      for i in $(seq $LAB_PATIENCE); do kill -0 $p 2>/dev/null || break; sleep 0.1; done
      kill -0 $p 2>/dev/null && kill -TERM $p 2>/dev/null
      for i in $(seq $LAB_PATIENCE); do kill -0 $p 2>/dev/null || break; sleep 0.1; done
      if kill -0 $p 2>/dev/null; then # a Cyrus master that is told to end while clients come may go round for ever
        kill -STOP $p; pkill -KILL -P $p; kill -KILL $p; echo "$n killed"
      else echo "$n stopped"; fi
      wait_free $n
    fi
  done
}

status() {
  local n
  for n in $ALL; do running $n && echo "$n up pid $(cat $LAB_ROOT/$n/master.pid)" || echo "$n down"; done
}

populate() { python3 $HERE/populate.py --users $LAB_USERS; }

case ${1:-} in
  install) install_pkgs;;
  setup) setup;;
  gen) gen;;
  start) shift; start "$@";;
  stop) shift; stop "$@";;
  restart) shift; stop "$@"; start "$@";;
  status) status;;
  populate) populate;;
  reset) stop; rm -rf $LAB_ROOT/mupdate $LAB_ROOT/be1 $LAB_ROOT/be2 $LAB_ROOT/fe1 $LAB_TMPFS; gen;;
  up) setup && start && populate;;
  *) sed -n '2,20p' "$0"; exit 2;;
esac
