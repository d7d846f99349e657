#!/bin/sh
# Make a CA and the server's certificate: certificates.sh DIRECTORY NAME [NAME...]
# The names are those that senders and workers call the server by; an address is written as IP:192.0.2.1.
set -eu
directory=$1
shift
names=""
for name in "$@"; do
    case $name in
        IP:*) names="$names,$name" ;;
        *) names="$names,DNS:$name" ;;
    esac
done
umask 077
mkdir -p "$directory"
cd "$directory"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=vscrapy CA" \
    -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign" \
    -keyout ca.key -out ca.pem
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=vscrapy" -keyout server.key -out server.csr
printf 'subjectAltName=%s\nkeyUsage=digitalSignature\nextendedKeyUsage=serverAuth\n' "${names#,}" > server.ext
openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 825 -extfile server.ext -out server.pem
rm server.csr server.ext
chmod 644 ca.pem server.pem
